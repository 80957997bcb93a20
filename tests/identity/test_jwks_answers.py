"""What the key engine believes of an issuer's answers, and what it does not."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.identity.fetching import check_url
from asgi_guard.identity.jwks import MAX_BODY, KeyEngine
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.policy.keys import MAX_KEYS
from asgi_guard.testing import DISCOVERY, SigningKey
from tests.site import Site, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.clock import Clock

RS256 = frozenset({"RS256"})


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as server:
        yield server


async def test_jwks_url(site: Site, signing_key: SigningKey) -> None:
    """With the keys' address given, nothing is discovered; it may have a query."""
    url = site.put("/keys?p=policy", {"keys": [signing_key.jwk]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    assert site.asked == ["/keys?p=policy"]


async def test_discovered_keys_with_a_query(site: Site, signing_key: SigningKey) -> None:
    """An issuer may tell its key sets apart by a query where they are discovered, too."""
    url = site.put("/keys?p=policy", {"keys": [signing_key.jwk]})
    site.put(DISCOVERY, {"issuer": site.url, "jwks_uri": url})
    engine = KeyEngine(site.url, algorithms=RS256)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    assert site.asked == [DISCOVERY, "/keys?p=policy"]


async def unavailable(engine: KeyEngine) -> None:
    with pytest.raises(KeysUnavailableError) as caught:
        await engine.obtain("any", "RS256")
    assert caught.value.retry_after > 0
    with pytest.raises(KeysUnavailableError):
        await engine.check()


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": "KEYS"}, "another issuer, 'https://evil.example'"),
        ({"issuer": "ISSUER/", "jwks_uri": "KEYS"}, "/'"),
        ({"issuer": "x\r\n" * 999, "jwks_uri": "KEYS"}, "another issuer, 'x"),
        ({"jwks_uri": "KEYS"}, "another issuer, 'None'"),
        (
            {"issuer": "https://login.example/{tenantid}/v2.0", "jwks_uri": "KEYS"},
            "is of many tenants, 'https://login.example/{tenantid}/v2.0': name one of them as the issuer",
        ),
        (
            {"issuer": "https://b2c.example/" + "0" * 36 + "/v2.0/", "jwks_uri": "https://b2c.example/" + "p" * 99},
            "letter by letter, and if no keys are found by it, 'https://b2c.example/" + "p" * 99 + "' as the JWKS URL",
        ),
        ([], "is no object"),
        ({"issuer": "ISSUER"}, "no jwks_uri"),
        ({"issuer": "ISSUER", "jwks_uri": 5}, "no jwks_uri"),
        ({"issuer": "ISSUER", "jwks_uri": "http://keys.example/jwks"}, "use https"),
        ({"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"}, "plain URL"),
        ({"issuer": "ISSUER", "jwks_uri": "https://user:secret@keys.example/jwks"}, "plain URL"),
    ],
)
async def test_bad_discovery(site: Site, document: Any, told: str, caplog: pytest.LogCaptureFixture) -> None:
    """A discovery document that names another issuer, or keys where none may be, leads to no fetch of keys."""
    text = json.dumps(document).replace("ISSUER", site.url).replace("KEYS", f"{site.url}/keys")
    site.put(DISCOVERY, text.encode())
    await unavailable(KeyEngine(site.url, algorithms=RS256))
    assert site.asked == [DISCOVERY]
    assert told in caplog.text
    assert "secret" not in caplog.text
    assert "\r" not in caplog.text


def big(jwk: dict[str, Any]) -> bytes:
    return json.dumps({"keys": [jwk], "padding": "x" * MAX_BODY}).encode()


@pytest.mark.parametrize(
    ("make", "status", "told"),
    [
        (big, 200, "more than"),
        (lambda jwk: b"<html>", 200, "did not answer JSON"),
        (lambda jwk: b"\xff\xfe\xff", 200, "did not answer JSON"),
        (lambda jwk: b"", 200, "did not answer JSON"),
        (lambda jwk: b"[" * 100_000, 200, "nested too deep"),
        (lambda jwk: json.dumps([jwk]).encode(), 200, "not a JWK set"),
        (lambda jwk: json.dumps({"keys": [jwk] * 101}).encode(), 200, "101 keys"),
        (lambda jwk: b'{"keys": []}', 200, "it is empty"),
        (lambda jwk: json.dumps({"keys": [{**jwk, "use": "enc"}]}).encode(), 200, "use"),
        (lambda jwk: json.dumps({"keys": [jwk]}).encode(), 500, "answered 500"),
        (lambda jwk: json.dumps({"keys": [jwk]}).encode(), 201, "answered 201"),
        (lambda jwk: b"", 304, "answered 304"),
    ],
)
async def test_bad_keys(
    site: Site,
    signing_key: SigningKey,
    make: Callable[[dict[str, Any]], bytes],
    status: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is no set of usable keys, of a bounded size, leaves the keys unavailable, and the log says why."""
    url = site.put("/keys", make(signing_key.jwk), status)
    await unavailable(KeyEngine(site.url, url, algorithms=RS256))
    assert told in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("answer", "status", "lasts"),
    [
        (b'{"keys": []}', 200, False),
        (b'{"keys": [{"kty": "oct", "k": "secret"}]}', 200, False),
        (b'{"keys": []}', 500, True),
        (b'{"keys": ', 200, True),
        (b"[]", 200, True),
    ],
)
async def test_a_set_without_keys_is_no_outage(
    site: Site, signing_key: SigningKey, clock: Clock, answer: bytes, status: int, lasts: bool
) -> None:
    """Past their life the keys outlast an issuer that does not answer, and not one that has withdrawn them."""
    url = site.put("/keys", {"keys": [signing_key.jwk]})
    engine = KeyEngine(site.url, url, algorithms=RS256, clock=clock)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    site.put("/keys", answer, status)
    clock.now += KeyTimes().ttl - 1
    await engine.refresh()
    assert (engine.failed, engine.keys is not None) == (1, True)
    clock.now += 1
    assert engine.status().usable == lasts
    if not lasts:
        await unavailable(engine)
        site.put("/keys", b"", 503)
        clock.now += KeyTimes().max_backoff
        await unavailable(engine)


async def test_a_redirect_is_not_followed(site: Site, signing_key: SigningKey) -> None:
    """A redirect is a failure, and its target is not asked."""
    target = site.put("/real", {"keys": [signing_key.jwk]})
    engine = KeyEngine(site.url, site.put("/keys", b"", 302, location=target), algorithms=RS256)
    await unavailable(engine)
    assert site.asked == ["/keys"]


async def test_a_redirect_is_not_followed_by_any_client(site: Site, signing_key: SigningKey) -> None:
    """Nor does a client that follows redirects otherwise."""
    target = site.put("/real", {"keys": [signing_key.jwk]})
    url = site.put("/keys", b"", 302, location=target)
    engine = KeyEngine(site.url, url, algorithms=RS256, client=lambda: httpx.AsyncClient(follow_redirects=True))
    await unavailable(engine)
    assert site.asked == ["/keys"]


async def test_a_compressed_answer_is_refused(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A small answer that would grow to a large one is not unpacked."""
    url = site.put("/keys", gzip.compress(b" " * 100 * MAX_BODY), content_encoding="gzip")
    assert len(site.answers["/keys"][2]) < MAX_BODY
    await unavailable(KeyEngine(site.url, url, algorithms=RS256))
    assert "content-encoding" in caplog.text


async def test_the_bound_of_an_answer(site: Site, signing_key: SigningKey) -> None:
    """An answer of as many bytes as are allowed is taken, and of one more is not."""
    document = json.dumps({"keys": [signing_key.jwk]}).encode()
    at_most = site.put("/at-most", document.ljust(MAX_BODY))
    assert (await KeyEngine(site.url, at_most, algorithms=RS256).obtain(None, "RS256")).kid == signing_key.kid
    await unavailable(KeyEngine(site.url, site.put("/more", document.ljust(MAX_BODY + 1)), algorithms=RS256))


async def test_the_bound_of_a_set(site: Site, signing_key: SigningKey) -> None:
    """A set of as many keys as are allowed is taken, each of them usable."""
    jwks = [{**signing_key.jwk, "kid": str(number)} for number in range(MAX_KEYS)]
    engine = KeyEngine(site.url, site.put("/keys", {"keys": jwks}), algorithms=RS256)
    assert (await engine.obtain("99", "RS256")).kid == "99"
    assert engine.status().keys == MAX_KEYS == 100


async def test_a_connection_refused() -> None:
    """A server that is not there leaves the keys unavailable."""
    with serving() as site:
        url = site.url
    await unavailable(KeyEngine(url, algorithms=RS256))


async def test_an_odd_key_does_not_take_the_others_down(
    site: Site, signing_key: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that cannot be used is passed over and reported."""
    url = site.put("/keys", {"keys": [{"kty": "oct", "k": "secret"}, signing_key.jwk]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    assert "not used: key 1" in caplog.text


async def test_ambiguous(site: Site, signing_key: SigningKey) -> None:
    """A token that two keys fit is refused rather than tried by both."""
    url = site.put("/keys", {"keys": [signing_key.jwk, {**signing_key.jwk, "kid": "other"}]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    with pytest.raises(TokenError, match="ambiguous_key"):
        await engine.obtain(None, "RS256")


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example:8443/realms/a",
        "http://localhost:8080",
        "http://issuer.localhost",
        "http://127.0.0.1:1",
        "http://[::1]:1/a",
    ],
)
def test_url(url: str) -> None:
    """Keys come over https, and over http from this machine."""
    assert check_url(url) == url


def test_a_url_of_keys() -> None:
    """Where keys are may be anywhere below the issuer, with a query."""
    url = "https://issuer.example/.well-known/jwks.json?tenant=a,b"
    assert check_url(url, query=True) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.example",
        "https://",
        "https:///path",
        "http://issuer.example",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://10.0.0.1",
        "ftp://issuer.example",
        "https://user@issuer.example",
        "https://user:pw@issuer.example",
        "https://issuer.example/#a",
        "https://issuer.example/?a=b",
        "https://[::1",
        "https://issuer.example, https://other.example",
        "https://issuer.example,https://other.example",
        "https://issuer.example https://other.example",
        "https://issuer.example/.well-known/openid-configuration",
    ],
)
def test_bad_url(url: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"."):
        check_url(url)
