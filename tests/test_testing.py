"""The local issuer that users' tests and ours are given."""

from __future__ import annotations

import asyncio
import stat
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from asgi_guard import AccessMiddleware, AuthSettings, ConfigError, Guard, GuardSettings, IdentityMiddleware
from asgi_guard.errors import TokenError
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import DISCOVERY, JWKS, Algorithm, LocalIssuer, SigningKey
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHMS: list[Algorithm] = ["RS256", "ES256", "EdDSA"]


def bearer(token: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


async def status(issuer: LocalIssuer, token: str | None = None) -> int:
    """What an app that accepts this issuer answers to a token."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()])
    return (await get(layer, headers=[bearer(token or issuer.token())])).status


@pytest.mark.parametrize("algorithm", ["HS256", "RS512", "PS256", "es256"])
def test_an_algorithm_that_it_has_not(algorithm: Any) -> None:
    """It signs by three algorithms, which it names where another is asked for, at first or in a rotation."""
    for make in (lambda: LocalIssuer(algorithm=algorithm), lambda: LocalIssuer().rotate(algorithm)):
        with pytest.raises(ConfigError, match=f"^algorithm: '{algorithm}' is none of 'RS256', 'ES256', 'EdDSA'$"):
            make()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_accepted(algorithm: Algorithm) -> None:
    """Its tokens are accepted, whatever it signs with, and by nobody who accepts another issuer."""
    issuer = LocalIssuer(algorithm=algorithm)
    assert await status(issuer) == 200
    assert await status(LocalIssuer(algorithm=algorithm), issuer.token()) == 401


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_served(algorithm: Algorithm) -> None:
    """As a server it gives discovery, its keys without their private parts, and 404 for anything else."""
    with LocalIssuer(algorithm=algorithm).serve() as issuer:
        async with httpx.AsyncClient() as client:
            document = (await client.get(issuer.url + DISCOVERY)).json()
            keys = (await client.get(document["jwks_uri"])).json()["keys"]
            assert (await client.get(issuer.url + "/else")).status_code == 404
    assert document["issuer"] == issuer.url
    assert [key["kid"] for key in keys] == [issuer.published[0].kid]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(keys[0])
    assert issuer.fetches == {DISCOVERY: 1, JWKS: 1, "/else": 1}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://issuer.test", ""),
        ("https://tenant.auth0.com/", ""),
        ("https://kc.test/realms/acme", "/realms/acme"),
        ("https://login.test/tenant/v2.0/", "/tenant/v2.0"),
    ],
)
async def test_urls_as_issuers_have_them(signing_key: SigningKey, url: str, path: str) -> None:
    """By any URL of an issuer, with a path or a slash at its end, it is found, in this process and as a server."""
    issuer = LocalIssuer(url, key=signing_key)
    auth = AuthSettings(issuer=url, audience=(issuer.audience,))
    guard = Guard(Echo(), GuardSettings(auth=auth), http_client=issuer.client)
    assert (await get(guard, headers=[bearer(issuer.token())])).status == 200
    assert issuer.fetches == {path + DISCOVERY: 1, path + JWKS: 1}
    async with issuer.client() as client:
        known = await client.get(url.rstrip("/") + JWKS)
        again = {"if-none-match": known.headers["etag"]}
        assert (await client.get(url.rstrip("/") + JWKS, headers=again)).status_code == 304
    with issuer.serve():
        issuer.url += urlsplit(url).path
        auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
        guard = Guard(Echo(), GuardSettings(auth=auth))
        assert (await get(guard, headers=[bearer(issuer.token())])).status == 200


async def test_switches() -> None:
    """Outage makes it answer 503, and slow makes it take its time, in this process and as a server."""
    with LocalIssuer(algorithm="EdDSA").serve() as issuer:
        issuer.outage = True
        for client in (issuer.client(), httpx.AsyncClient()):
            async with client:
                assert (await client.get(issuer.url + JWKS)).status_code == 503
        issuer.outage = False
        issuer.slow = 0.2
        async with httpx.AsyncClient(timeout=httpx.Timeout(20, read=0.02)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(issuer.url + JWKS)
    issuer.slow = 3600
    async with issuer.client() as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get(issuer.url + JWKS), 0.01)


async def test_rotation() -> None:
    """A new key signs from then on; the old one's tokens hold for as long as it is published."""
    issuer = LocalIssuer(algorithm="EdDSA")
    old = issuer.token()
    assert issuer.rotate(keep=True) is issuer.published[-1]
    assert [await status(issuer, old), await status(issuer)] == [200, 200]
    assert issuer.rotate("ES256").algorithm == "ES256"
    assert [await status(issuer, old), await status(issuer)] == [401, 200]
    assert len(issuer.published) == 1


def test_token(issuer: LocalIssuer) -> None:
    """A token holds what is said, in the place of what it holds otherwise; None leaves a claim out."""
    token = issuer.token("bob", scopes=["a", "b"], lifetime=60, headers={"typ": "at+jwt"}, extra=[1], jti=None)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["scope"], claims["aud"], claims["extra"]) == ("bob", "a b", "api", [1])
    assert claims["exp"] - claims["iat"] == 60
    assert "jti" not in claims
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


@pytest.mark.parametrize(("word", "claim"), [("audience", "aud"), ("issuer", "iss")])
def test_a_claim_by_the_word_for_it(issuer: LocalIssuer, word: str, claim: str) -> None:
    """An audience or an issuer is no claim of that name, beside the token's own: a test would meet a good token."""
    another: Any = "another"
    with pytest.raises(TypeError, match=f"say {claim}="):
        issuer.token("alice", **{word: another})


@pytest.mark.parametrize("lifetime", [0, -0.5, -1, -3600])
async def test_a_token_that_has_ended(issuer: LocalIssuer, lifetime: float) -> None:
    """A token that is asked for as one that has ended is refused as such, by the leeway that holds unless said."""
    token = issuer.token(lifetime=lifetime)
    with pytest.raises(TokenError, match="expired: it expired"):
        await IdentityMiddleware(Echo(), issuers=[issuer.accepted()]).tokens.verify(token.encode())
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    guard = Guard(Echo(), GuardSettings(auth=auth), http_client=issuer.client)
    assert (await get(guard, headers=[bearer(token)])).status == 401
    assert (await get(guard, headers=[bearer(issuer.token(exp=int(time.time()) - 1))])).status == 200


def test_accepted_options(issuer: LocalIssuer) -> None:
    """Further options are those of the issuer as the layer takes it."""
    times = KeyTimes(ttl=1)
    accepted = issuer.accepted(times=times, leeway=5)
    assert (accepted.times, accepted.leeway, accepted.audience) == (times, 5, (issuer.audience,))


async def test_load(tmp_path: Path) -> None:
    """An issuer's key is kept in a file that only its owner can read, and is the same the next time."""
    path = tmp_path / "new" / "key.pem"
    first = LocalIssuer.load(path, audience="mine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = LocalIssuer.load(path)
    assert first.published[0].kid == second.published[0].kid
    assert first.audience == "mine"
    assert await status(second, first.token(aud=second.audience)) == 200


def test_load_another_kind_of_key(tmp_path: Path) -> None:
    """A file with another kind of key is refused, and left as it is."""
    private = SigningKey("EdDSA").private
    path = tmp_path / "key.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    before = path.read_bytes()
    with pytest.raises(ValueError, match="RSA"):
        LocalIssuer.load(path)
    assert path.read_bytes() == before
