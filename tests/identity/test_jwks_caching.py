"""What the key engine makes of what issuers say of caching: how long keys live, and that they have not changed."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import orjson
import pytest

from asgi_guard import AccessMiddleware, IdentityMiddleware
from asgi_guard.errors import KeysUnavailableError
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import JWKS, LocalIssuer, SigningKey
from tests.asgi import Echo, get
from tests.clock import Clock
from tests.site import running, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

RS256 = frozenset({"RS256"})
TIMES = KeyTimes()


def fetching() -> bool:
    """Whether a fetch is under way."""
    return any(task.get_name() == "asgi-guard key fetch" for task in asyncio.all_tasks())


def engine_of(issuer: LocalIssuer, clock: Clock) -> KeyEngine:
    return KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock, random=lambda: 0.0)


@pytest.mark.parametrize(
    ("control", "life"),
    [
        ("", TIMES.ttl),
        ("max-age=600", 600),
        ("public, Max-Age=600, must-revalidate", 600),
        ("max-age=1", TIMES.min_ttl),
        ("max-age=99999999999999999999", TIMES.max_ttl),
        ("no-store", TIMES.min_ttl),
        ("no-cache, max-age=600", TIMES.min_ttl),
        ("s-maxage=600", TIMES.ttl),
        ("max-age=soon", TIMES.ttl),
    ],
)
async def test_cache_control(issuer: LocalIssuer, clock: Clock, control: str, life: float) -> None:
    """Keys live as long as the issuer says, within bounds, and are fetched anew shortly before."""
    issuer.cache_control = control
    engine = engine_of(issuer, clock)
    await engine.refresh()
    fetched = clock.now
    for later, state, due in (
        (life - min(TIMES.refresh_ahead, life / 2) - 1, "fresh", False),
        (life - min(TIMES.refresh_ahead, life / 2), "fresh", True),
        (life - 0.5, "fresh", True),
        (life, "expired", True),
    ):
        clock.now = fetched + later
        assert engine.status().state == state
        assert not fetching()
        if state == "fresh":
            assert engine.peek(None, "RS256") is not None
            assert fetching() == due
            await engine.aclose()


async def test_age(signing_key: SigningKey, clock: Clock) -> None:
    """Of the life of an answer that a cache gave, the time that it spent there is over."""
    with serving() as site:
        url = site.put("/keys", {"keys": [signing_key.jwk]}, cache_control="max-age=600", age="500")
        engine = KeyEngine(site.url, url, algorithms=RS256, clock=clock)
        await engine.refresh()
    clock.now += 99
    assert engine.status().state == "fresh"
    clock.now += 1
    assert engine.status().state == "expired"


async def test_unchanged(issuer: LocalIssuer, clock: Clock) -> None:
    """An issuer that says that nothing has changed gives the very same set another life, as long as it says now."""
    engine = engine_of(issuer, clock)
    await engine.refresh()
    keys = engine.keys
    issuer.cache_control = "max-age=600"
    for number in range(1, 4):
        clock.now += TIMES.ttl
        await engine.refresh()
        assert engine.keys is keys
        assert (issuer.unchanged, issuer.fetches[JWKS]) == (number, number + 1)
    clock.now += 599
    assert engine.status().state == "fresh"
    assert engine.status().age == 599


async def test_unchanged_over_a_socket(issuer: LocalIssuer) -> None:
    """Over a socket it is the same."""
    with issuer.serve():
        engine = KeyEngine(issuer.url, algorithms=RS256)
        await engine.refresh()
        keys = engine.keys
        await engine.refresh()
    assert engine.keys is keys is not None
    assert issuer.unchanged == 1


async def test_changed(issuer: LocalIssuer, clock: Clock) -> None:
    """A set that has changed is fetched whole, and its tag is the one that is sent from then on."""
    engine = engine_of(issuer, clock)
    await engine.refresh()
    keys = engine.keys
    issuer.rotate()
    await engine.refresh()
    assert engine.keys is not keys
    assert engine.peek(issuer.published[-1].kid, "RS256") is not None
    assert issuer.unchanged == 0
    await engine.refresh()
    assert issuer.unchanged == 1


async def test_unchanged_after_an_outage(issuer: LocalIssuer, clock: Clock) -> None:
    """Keys that became too old in an outage are believed again when the issuer says that they have not changed."""
    engine = engine_of(issuer, clock)
    await engine.refresh()
    issuer.outage = True
    clock.now += TIMES.ttl + TIMES.stale_for
    with pytest.raises(KeysUnavailableError):
        await engine.check()
    issuer.outage = False
    clock.now += TIMES.first_backoff
    await engine.check()
    assert issuer.unchanged == 1
    assert engine.status().state == "fresh"


async def test_remembered_tokens_stay_verified(issuer: LocalIssuer) -> None:
    """A refresh that finds the same keys leaves remembered tokens remembered, and one that does not forgets them."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()])
    header = (b"authorization", f"Bearer {issuer.token()}".encode())
    assert (await get(layer, headers=[header])).status == 200
    (verifier,) = layer.tokens.verifiers.values()
    await verifier.engine.refresh()
    (entry,) = layer.tokens._cache._entries.values()
    assert entry[2] is verifier.engine.keys
    issuer.rotate()
    await verifier.engine.refresh()
    assert (await get(layer, headers=[header])).status == 401


class Tagged(ThreadingHTTPServer):
    """A server with a set of keys, and an entity tag that the test chooses; it believes any tag that it is sent."""

    daemon_threads = True

    def __init__(self, key: SigningKey) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.document = orjson.dumps({"keys": [key.jwk]})
        self.tag: bytes | None = None
        self.sent: list[str | None] = []


class _Answer(BaseHTTPRequestHandler):
    server: Tagged

    def do_GET(self) -> None:
        sent = self.headers.get("if-none-match")
        self.server.sent.append(sent)
        known = sent is not None
        body = b"" if known else self.server.document
        head = [b"HTTP/1.0 304 Not Modified" if known else b"HTTP/1.0 200 OK"]
        if self.server.tag is not None:
            head.append(b"etag: " + self.server.tag)
        self.wfile.write(b"\r\n".join([*head, b"", body]))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def tagged(key: SigningKey) -> Iterator[Tagged]:
    with Tagged(key) as server, running(server):
        yield server


@pytest.mark.parametrize(
    ("tag", "sent"),
    [
        (b'"a"', '"a"'),
        (b'W/"a-b!"', 'W/"a-b!"'),
        (b'""', '""'),
        (None, None),
        (b"", None),
        (b"a", None),
        (b'w/"a"', None),
        (b'"a', None),
        (b'"a" "b"', None),
        (b'"\xc3\xa9"', None),
        (b'"\xff"', None),
        (b'"' + b"x" * 257 + b'"', None),
    ],
)
async def test_a_tag_is_sent_back_if_it_can_be(signing_key: SigningKey, tag: bytes | None, sent: str | None) -> None:
    """A well-formed tag is sent back as it came; any other is passed over, and keeps no refresh from succeeding."""
    with tagged(signing_key) as server:
        server.tag = tag
        engine = KeyEngine(server.url, server.url, algorithms=RS256)
        await engine.refresh()
        keys = engine.keys
        await engine.refresh()
    assert server.sent == [None, sent]
    assert engine.keys is keys is not None
    assert engine.status().failures == 0


async def test_a_tag_holds_at_its_own_place(signing_key: SigningKey, clock: Clock) -> None:
    """Where discovery leads to another place, the tag of the former one is not sent there."""
    with tagged(signing_key) as first, tagged(signing_key) as second, serving() as site:
        first.tag = second.tag = b'"same"'
        engine = KeyEngine(site.url, algorithms=RS256, clock=clock)
        for server in (first, second, second):
            site.put("/.well-known/openid-configuration", {"issuer": site.url, "jwks_uri": server.url})
            await engine.refresh()
    assert (first.sent, second.sent) == ([None], [None, '"same"'])


async def test_a_failure_in_between_keeps_the_tag(issuer: LocalIssuer, clock: Clock) -> None:
    """A fetch that failed changes neither the keys nor the tag that they are asked for by."""
    engine = engine_of(issuer, clock)
    await engine.refresh()
    good, issuer.published = issuer.published, []
    await engine.refresh()
    assert engine.status().failures == 1
    issuer.published = good
    await engine.refresh()
    assert (issuer.unchanged, engine.status().failures) == (1, 0)
