"""The checklist of a service in production, line by line."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from asgi_guard.policy.checklist import CHECKLIST, Facts, Status, judge
from asgi_guard.settings import variables

GOOD = Facts(
    lifetimes=(("https://id.example.com", 720),),
    keys=True,
    revocation=True,
    shared_store=True,
    store=True,
    limited_by=frozenset({"anonymous", "user"}),
    live_path="/health/live",
    ready_path="/health/ready",
    asked=frozenset({"keys", "store"}),
    app_checks=("postgres",),
    drain=8,
    graceful=25,
    p99=0.18,
    grace_period=60,
    request_id_header="x-request-id",
    log_format="json",
    headers=True,
    hsts=31_536_000,
    behind_proxy=True,
    origins=("https://shop.example",),
    credentials=True,
)
NOT_OURS = {"refresh tokens", "logout", "migrations", "lifespan"}
"""Lines that only the app, the issuer or the deployment can answer."""


def found(facts: Facts) -> dict[str, Status]:
    return {line.name: finding.status for line, finding in judge(facts)}


def test_what_is_done_right_passes() -> None:
    """Of a configuration in which everything is right, nothing fails, and only what is not ours is not known."""
    assert found(GOOD) == {line.name: "unknown" if line.name in NOT_OURS else "pass" for line in CHECKLIST}


def test_nothing_said() -> None:
    """Of no configuration at all, every line that a configuration can make pass fails or is not known."""
    statuses = found(Facts())
    assert {name for name, status in statuses.items() if status == "pass"} == {"cors"}
    assert {name for name, status in statuses.items() if status == "unknown"} == {*NOT_OURS, "access tokens"}


@pytest.mark.parametrize(
    ("change", "line", "status", "says"),
    [
        ({"lifetimes": ()}, "tokens", "fail", "no issuer"),
        ({"lifetimes": (), "introspected": True}, "tokens", "pass", "RFC 7662"),
        ({"over_http": ("http://id.example.com",)}, "tokens", "fail", "keys of http://id.example.com come over http"),
        ({"lifetimes": (("http://adfs.example.com/trust", 60),)}, "tokens", "pass", "keys by JWKS"),
        ({"keys": False}, "tokens", "fail", "could not be had"),
        ({"keys": None}, "tokens", "pass", "not asked"),
        ({"lifetimes": (("https://a", 60), ("https://b", None))}, "access tokens", "fail", "https://b"),
        ({"lifetimes": (("https://a", 901),)}, "access tokens", "fail", "15 minutes"),
        ({"lifetimes": (("https://a", 900),)}, "access tokens", "pass", "900 s"),
        ({"revocation": False}, "denylist", "fail", "not looked up"),
        ({"shared_store": False}, "denylist", "fail", "end with this process"),
        ({"denies_unknown": False}, "denylist", "fail", "while the store is away"),
        ({"limited_by": frozenset()}, "limits", "fail", "no limit"),
        ({"limited_by": frozenset()}, "retry-after", "fail", "no limit refuses every client"),
        ({"limited_by": frozenset({"user"})}, "limits", "fail", "strangers"),
        ({"limited_by": frozenset({"ip"})}, "limits", "fail", "identities"),
        ({"limited_by": frozenset({"ip"}), "lifetimes": ()}, "limits", "pass", "by ip"),
        ({"shared_store": False}, "limits", "fail", "counts for itself"),
        ({"store": False}, "limits", "fail", "did not answer"),
        ({"limits_told": False}, "retry-after", "pass", "without RateLimit headers"),
        ({"live_path": ""}, "probes", "fail", "live"),
        ({"ready_path": ""}, "probes", "fail", "ready"),
        ({"asked": frozenset({"keys"})}, "probes", "fail", "no shared store"),
        ({"app_checks": None}, "probes", "unknown", "the app knows"),
        ({"app_checks": ()}, "probes", "fail", "no database"),
        ({"drain": 0}, "graceful stop", "fail", "stays up"),
        ({"p99": None}, "graceful stop", "unknown", "8 s to drain"),
        ({"p99": 26}, "graceful stop", "fail", "26"),
        ({"p99": 25}, "graceful stop", "pass", "25 s"),
        ({"grace_period": 33}, "graceful stop", "fail", "SIGKILL after 33"),
        ({"grace_period": 34}, "graceful stop", "pass", "8 s"),
        ({"grace_period": None}, "graceful stop", "pass", "8 s"),
        ({"request_id_header": ""}, "request id", "fail", "no header"),
        ({"log_format": "off"}, "logs", "fail", "no access log"),
        ({"log_sample": 0.1}, "logs", "pass", "10% of ordinary exchanges, all failures"),
        ({"headers": False}, "headers", "fail", "no security headers"),
        ({"hsts": 31_535_999}, "headers", "fail", "less than a year"),
        ({"behind_proxy": False}, "headers", "unknown", "a proxy"),
        ({"origins": ()}, "cors", "pass", "no other origin"),
        ({"origins": ("*",)}, "cors", "fail", "more than one"),
        ({"origins": ("https://*.shop.example",)}, "cors", "fail", "more than one"),
        ({"origins": ("http://shop.example",)}, "cors", "fail", "forged"),
        ({"origins": ("tauri://localhost", "https://shop.example")}, "cors", "pass", "2 exact origins"),
        ({"any_method": True}, "cors", "fail", "any method"),
        ({"credentials": False}, "cors", "pass", "without credentials"),
    ],
)
def test_one_thing_changed(change: dict[str, object], line: str, status: Status, says: str) -> None:
    """Each line is judged by its own facts, says what was found, and what to set where it does not hold."""
    facts = replace(GOOD, **change)  # type: ignore[arg-type]  # a table of many fields
    (finding,) = (finding for each, finding in judge(facts) if each.name == line)
    assert finding.status == status
    assert says in finding.found
    assert bool(finding.remedy) == (status != "pass")


def test_remedies_name_variables_that_there_are() -> None:
    """Every variable that a remedy names exists."""
    known = {variable.name for variable in variables()}
    for facts in (Facts(), GOOD, replace(GOOD, hsts=0), replace(GOOD, denies_unknown=False), replace(GOOD, drain=0)):
        for _, finding in judge(facts):
            assert set(re.findall(r"ASGI_GUARD_[A-Z_]*[A-Z]", finding.remedy)) <= known
