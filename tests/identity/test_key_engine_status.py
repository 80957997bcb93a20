"""What the key engine tells people of its keys: in `asgi-guard check`, in readiness, and in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import orjson
import pytest

from asgi_guard.errors import KeysUnavailableError
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.policy.keyring import KeyStatus, KeyTimes
from asgi_guard.testing import LocalIssuer
from tests.cli.running import invoke
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.testing import SigningKey

RS256 = frozenset({"RS256"})
TIMES = KeyTimes()


@pytest.fixture
def served(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIssuer]:
    """An issuer that the environment names."""
    with issuer.serve():
        monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", issuer.url)
        monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", issuer.audience)
        yield issuer


def probed() -> tuple[int, bool, str]:
    """What `asgi-guard check` makes of the issuer: its exit code, whether it is well, and what it says of it."""
    ran = invoke("check", "--json")
    (probe,) = [probe for probe in orjson.loads(ran.stdout)["probes"] if probe["name"] == "issuer keys"]
    return ran.exit_code, probe["ok"], probe["detail"]


def test_check(served: LocalIssuer) -> None:
    """`asgi-guard check` tells how many keys the issuer has, and that they are fresh."""
    served.rotate(keep=True)
    code, fine, detail = probed()
    assert (code, fine) == (0, True)
    assert detail.startswith(f"{served.url}: 2 keys, 0 s old, fresh; ")


def test_check_in_an_outage(served: LocalIssuer) -> None:
    """`asgi-guard check` tells why there are no keys."""
    served.outage = True
    code, fine, detail = probed()
    assert (code, fine) == (1, False)
    last = f"{served.url}/.well-known/openid-configuration answered 503"
    assert detail == f"the keys of {served.url} are not available: no keys; failed tries: 1, the last one: {last}"


@pytest.mark.parametrize("away", [0, 1])
def test_check_of_several(
    served: LocalIssuer, signing_key: SigningKey, monkeypatch: pytest.MonkeyPatch, away: int
) -> None:
    """Of several issuers `asgi-guard check` tells how each stands, whichever does not answer, and fails if one does."""
    with LocalIssuer(key=signing_key).serve() as partner:
        monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUERS", f'[{{"issuer": "{partner.url}"}}]')
        issuers = [served, partner]
        issuers[away].outage = True
        ran = invoke("check", "--json")
        probes = orjson.loads(ran.stdout)["probes"]
        lines = orjson.loads(invoke("check", "--json", "--production").stdout)["checklist"]
    assert ran.exit_code == 1
    assert [probe["name"] for probe in probes] == ["issuer keys"] * 2
    assert [probe["ok"] for probe in probes] == [index != away for index in (0, 1)]
    assert all(issuer.url in probe["detail"] for issuer, probe in zip(issuers, probes, strict=True))
    (tokens,) = [line for line in lines if line["name"] == "tokens"]
    assert tokens["status"] == "fail"


async def test_readiness(issuer: LocalIssuer, clock: Clock) -> None:
    """Readiness fails with what is known: the age of the keys, how often it was tried, and why it failed."""
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock)
    await engine.refresh()
    issuer.outage = True
    clock.now += TIMES.ttl + TIMES.stale_for
    with pytest.raises(KeysUnavailableError, match=r"1 key, 3900 s old, expired; failed tries: 1, .*answered 503"):
        await engine.check()


async def test_a_slow_fetch_is_alone(issuer: LocalIssuer, clock: Clock) -> None:
    """However often readiness asks while an old set still counts, it is ready, and one fetch is under way."""
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock)
    await engine.refresh()
    clock.now += TIMES.ttl
    issuer.slow = 3600
    for _ in range(3):
        await engine.check()
        await asyncio.sleep(0)
        clock.now += 60
    assert [task.get_name() for task in asyncio.all_tasks()].count("asgi-guard key fetch") == 1
    await engine.aclose()


async def test_status(issuer: LocalIssuer, clock: Clock) -> None:
    """The status at any time is a value that says all of it, and asking for it changes and fetches nothing."""
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock, random=lambda: 0.5)
    assert engine.status() == KeyStatus("missing", 0, None, 0.0, 0, None, 0.0)
    assert issuer.fetches == {}
    await engine.refresh()
    clock.now += 10
    assert engine.status() == KeyStatus("fresh", 1, 10.0, 3890.0, 0, None, 0.0)
    issuer.outage = True
    await engine.refresh()
    status = engine.status()
    assert (status.state, status.failures, status.next_try) == ("fresh", 1, 0.75)
    clock.now += TIMES.ttl
    status = engine.status()
    assert (status.state, status.usable, status.next_try) == ("stale", True, 0.0)


async def test_an_outage_that_ends_soon(issuer: LocalIssuer, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """However many tries fail, the log has a line for the beginning of an outage and one for its end, each time."""
    caplog.set_level(logging.WARNING, "asgi_guard")
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock)
    await engine.refresh()
    for _ in range(2):
        issuer.outage = True
        for _ in range(5):
            await engine.refresh()
            clock.now += 10
        issuer.outage = False
        for _ in range(5):
            await engine.refresh()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2
    assert "tokens are answered with 503" not in caplog.text
