"""What becomes of a guard with several issuers when one of them is away."""

from __future__ import annotations

import json
import logging
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    AuthSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    LogSettings,
)
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.testing import SigningKey


@pytest.fixture
def first(signing_key: SigningKey) -> Iterator[LocalIssuer]:
    """The issuer that is named first."""
    with LocalIssuer(key=signing_key).serve() as issuer:
        yield issuer


@pytest.fixture
def partner(signing_key: SigningKey) -> Iterator[LocalIssuer]:
    """The issuer that is named beside it."""
    with LocalIssuer(key=signing_key).serve() as issuer:
        yield issuer


def guarded(first: LocalIssuer, *others: LocalIssuer) -> Guard:
    """A guard that trusts these issuers."""
    named: Any = tuple({"issuer": each.url} for each in others)
    auth = AuthSettings(issuer=first.url, audience=(first.audience,), issuers=named)
    return Guard(Echo(), GuardSettings(auth=auth, log=LogSettings(format="off")))


async def readiness(guard: Guard) -> tuple[int, dict[str, str]]:
    """What readiness answers to the machine itself: its status, and what each check said."""
    exchange = await get(guard, "/health/ready", client=("127.0.0.1", 1))
    return exchange.status, json.loads(exchange.body)["checks"]


async def started(guard: Guard) -> Guard:
    """A guard that has tried to fetch the keys, as it does at start-up."""
    for layer in guard.layers:
        if isinstance(layer, IdentityMiddleware):
            await layer.startup()
    return guard


async def status(guard: Guard, issuer: LocalIssuer) -> int:
    """What a token of an issuer is answered with."""
    return (await get(guard, headers=[(b"authorization", f"Bearer {issuer.token()}".encode())])).status


@pytest.mark.parametrize("away", ["first", "partner"])
@pytest.mark.parametrize("warm", [True, False])
async def test_one_is_away(
    first: LocalIssuer, partner: LocalIssuer, away: str, warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While one issuer can be served the process is ready, whichever it is; the log names the other one, once."""
    caplog.set_level(logging.WARNING, "asgi_guard")
    down, up = (first, partner) if away == "first" else (partner, first)
    down.outage = True
    guard = guarded(first, partner)
    if warm:
        await started(guard)
    for _ in range(3):
        told = {"keys": "ok", f"keys of {up.url}": "ok", f"keys of {down.url}": "failed"}
        answered, checks = await readiness(guard)
        assert (answered, checks["keys"], checks[f"keys of {down.url}"]) == (200, "ok", "failed")
        if warm:  # else its keys are on their way while readiness answers
            assert checks == told
        assert (await status(guard, up), await status(guard, down)) == (200, 503)
    (line,) = [text for record in caplog.records if (text := record.getMessage()).startswith("the keys of")]
    assert line.startswith(f"the keys of {down.url} could not be fetched: no keys; failed tries: 1")
    assert line.endswith("; until they are, its tokens are answered with 503")


async def test_all_are_away(first: LocalIssuer, partner: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """With several issuers, too, a process that can serve none of them is not ready, and the log says why of each."""
    first.outage = partner.outage = True
    told = dict.fromkeys(("keys", f"keys of {first.url}", f"keys of {partner.url}"), "failed")
    assert await readiness(guarded(first, partner)) == (503, told)
    (line,) = [text for record in caplog.records if (text := record.getMessage()).startswith("readiness: not ready")]
    assert f"the keys of {first.url} are not available" in line
    assert f"the keys of {partner.url} are not available" in line


async def test_one_that_is_slow(first: LocalIssuer, partner: LocalIssuer) -> None:
    """An issuer that does not answer in time holds up no probe, and the keys of another make the process ready."""
    first.slow = 5
    guard = guarded(first, partner)
    answered, checks = await readiness(guard)
    assert (answered, checks["keys"], checks[f"keys of {first.url}"]) == (200, "ok", "failed")
    for layer in guard.layers:
        await layer.shutdown()


async def test_an_only_issuer_that_is_away(first: LocalIssuer) -> None:
    """A process that cannot reach its only issuer is not ready, and there is one check of keys."""
    first.outage = True
    assert await readiness(guarded(first)) == (503, {"keys": "failed"})
    first.outage = False
    assert await readiness(guarded(first)) == (200, {"keys": "ok"})


async def test_the_log_says_whose_a_user_is(first: LocalIssuer, partner: LocalIssuer) -> None:
    """Where there are several issuers, or API keys too, each of which may be alice's, the log names the user's."""
    key = APIKey("alice", sha256(b"secret").hexdigest())
    for others, keys in (((partner,), ()), ((), (key,)), ((), ())):
        lines: list[bytes] = []
        named: Any = tuple({"issuer": each.url} for each in others)
        auth = AuthSettings(issuer=first.url, audience=(first.audience,), issuers=named, api_keys=keys)
        guard = Guard(Echo(), GuardSettings(auth=auth))
        (log,) = (layer for layer in guard.layers if isinstance(layer, AccessLogMiddleware))
        log.write = lines.append
        for issuer in (first, *others):
            await get(guard, headers=[(b"authorization", f"Bearer {issuer.token('alice')}".encode())])
        await get(guard, headers=[(b"x-api-key", b"secret")])
        told = [(record.get("user.id"), record.get("asgi_guard.issuer")) for record in map(json.loads, lines)]
        assert told == [
            ("alice", first.url if others or keys else None),
            *(("alice", each.url) for each in others),
            ("alice" if keys else None, None),
        ]
