"""`asgi-guard check --production`: the checklist of a service in production, judged by the effective configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_guard.cli.output import say, table
from asgi_guard.middleware import HealthMiddleware
from asgi_guard.operations.readiness import OWN_CHECKS, is_own
from asgi_guard.policy.checklist import Facts, Finding, Line, judge
from asgi_guard.policy.security import SecurityHeaders, SecurityPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.cli.configured import Configured


class Deployment(NamedTuple):
    """What is known of a deployment by being told.

    Attributes:
        graceful: seconds that the server gives requests to end.
        p99: seconds that 99 of 100 requests take at most.
        grace_period: seconds after which whoever sent SIGTERM kills.
    """

    graceful: float = 30
    p99: float | None = None
    grace_period: float | None = None


def facts_of(
    configured: Configured,
    deployment: Deployment,
    answered: dict[str, bool],
) -> Facts:
    """Gather what the checklist asks about.

    Args:
        configured: the effective configuration.
        deployment: what was told beside.
        answered: whether the store and the issuers answered, by the probe's name.
    """
    settings, layers, guard = configured.settings, configured.layers, configured.guard
    auth, rate, cors = settings.auth, settings.rate, settings.cors
    asked = {check.name for layer in layers if isinstance(layer, HealthMiddleware) for check in layer.checks}
    section = settings.security
    limits = configured.limits[-1]
    bounds = ((each.issuer, _least(each.max_token_lifetime, each.max_token_age)) for each in auth.trusted)
    return Facts(
        lifetimes=tuple(bounds),
        over_http=tuple(
            each.issuer for each in auth.trusted if not (each.jwks_url or each.issuer).startswith("https://")
        ),
        introspected=auth.introspection_url is not None,
        keys=answered.get("issuer keys"),
        revocation=auth.revocation,
        denies_unknown=auth.revocation_on_store_failure == "deny",
        shared_store=configured.shared,
        store=answered.get("store"),
        limited_by=frozenset(limit.key for each in limits.all() for limit in each.limits if limit.enforced == 100),
        limits_told=rate.headers != "off",
        live_path=settings.health.live_path,
        ready_path=settings.health.ready_path,
        asked=frozenset(asked & OWN_CHECKS),
        app_checks=None if guard is None else tuple(sorted(name for name in asked if not is_own(name))),
        drain=settings.health.drain_seconds,
        graceful=deployment.graceful,
        p99=deployment.p99,
        grace_period=deployment.grace_period,
        request_id_header=settings.request_id.header,
        log_format=settings.log.format,
        log_sample=settings.log.sample,
        headers=section.preset != "off",
        hsts=_hsts_seconds(SecurityPolicy.of(SecurityHeaders(**section.model_dump()))),
        behind_proxy=bool(settings.proxy.trusted or settings.proxy.hops),
        origins=tuple(cors.allow_origins),
        credentials=cors.allow_credentials,
        any_method="*" in (*cors.allow_methods, *cors.allow_headers),
    )


def _least(*bounds: float | None) -> float | None:
    return min((bound for bound in bounds if bound is not None), default=None)


def _hsts_seconds(policy: SecurityPolicy) -> int:
    value = dict(policy.secure).get(b"strict-transport-security", b"").decode("latin-1")
    found = re.search(r"max-age\D*(\d+)", value, re.IGNORECASE)
    return int(found[1]) if found else 0


def report(facts: Facts) -> tuple[list[tuple[Line, Finding]], bool]:
    """Judge the checklist: every line's finding, and whether none fails."""
    found = judge(facts)
    return found, all(finding.status != "fail" for _, finding in found)


def as_json(found: Sequence[tuple[Line, Finding]]) -> list[dict[str, Any]]:
    """The findings for a script."""
    return [{"name": line.name, "wanted": line.wanted, **finding._asdict()} for line, finding in found]


def show(found: Sequence[tuple[Line, Finding]]) -> None:
    """The findings for a person, with what to set below them."""
    rows = [(line.name, finding.status, line.wanted, finding.found) for line, finding in found]
    table(("line", "", "wanted", "found"), rows, "Production checklist")
    for status, words in (("fail", "set"), ("unknown", "look")):
        for line, finding in found:
            if finding.status == status:
                say(f"{words}: {line.name}: {finding.remedy}", "yellow" if status == "fail" else "dim")
