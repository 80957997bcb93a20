"""Whose a token is: which of several sorts it is, and what is remembered of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from asgi_guard import Issuer
from asgi_guard.errors import ConfigError, TokenError
from asgi_guard.identity.introspection import Introspection
from asgi_guard.identity.tokens import Tokens
from asgi_guard.policy.identity import revocation_key
from asgi_guard.policy.revocation import subject_key
from asgi_guard.policy.token import MAX_TOKEN_BYTES
from tests.introspecting import CLIENT, OpaqueIssuer
from tests.policy.forging import CLAIMS, compact

if TYPE_CHECKING:
    from asgi_guard.policy.identity import User
    from asgi_guard.testing import LocalIssuer


async def whose(tokens: Tokens, value: str) -> User:
    """The user of a token, at once or after somebody was asked."""
    found = tokens.find(value.encode())
    return await found if inspect.isawaitable(found) else found


async def refusal(tokens: Tokens, value: str) -> str:
    """Why a token is refused, by a request and by people who ask alike."""
    with pytest.raises(TokenError) as caught:
        await whose(tokens, value)
    with pytest.raises(TokenError) as again:
        await tokens.verify(value.encode())
    assert again.value.reason == caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("value", ["", "opaque", "a.b", "a.b.c", "e30.e30.", "v4.public.eyJzdWIiOiJhIn0"])
async def test_where_nobody_is_asked_an_opaque_token_is_malformed(issuer: LocalIssuer, value: str) -> None:
    """Without an endpoint, a token that is no JWT is refused as what it is, and nothing else happens."""
    tokens = Tokens([issuer.accepted()])
    assert await refusal(tokens, value) in ("malformed", "algorithm")
    await tokens.aclose()


@pytest.mark.parametrize("name", ["https://evil.test", "", 5, True, None, 0.5, [], ["https://id.test"], {}])
async def test_an_issuer_of_any_type_is_one_or_none(issuer: LocalIssuer, name: object) -> None:
    """A token whose `iss` is no text, be it one that cannot be looked up, is of no issuer; nor is one without."""
    tokens = Tokens([issuer.accepted()])
    assert await refusal(tokens, compact({"alg": "RS256"}, {**CLAIMS, "iss": name}).decode()) == "issuer"
    await tokens.aclose()


async def test_each_sort_of_token_is_judged_by_whom_it_concerns(issuer: LocalIssuer) -> None:
    """Beside an endpoint, signed tokens are verified here, whoever asks, and the others are asked about."""
    with OpaqueIssuer() as opaque:
        asked = Introspection(opaque.url, *CLIENT, issuer="https://id.test", audience="api")
        tokens = Tokens([issuer.accepted()], asked)
        for value, name in ((issuer.token("bob"), issuer.url), (opaque.token(), "https://id.test")):
            assert (await whose(tokens, value)).issuer == name
            assert (await tokens.verify(value.encode())).issuer == name
        assert list(opaque.asked) == ["opaque-token"]
        large = opaque.token("x" * (MAX_TOKEN_BYTES + 1))
        assert await refusal(tokens, large) == "too_large"
        assert large not in opaque.asked
        await tokens.aclose()


async def test_a_user_is_known_by_the_ids_of_the_token(issuer: LocalIssuer) -> None:
    """A verified token is looked up among the revoked by its `jti`, if it has one, and by its subject."""
    tokens = Tokens([issuer.accepted()])
    for jti, name in (("t1", revocation_key(issuer.url, "t1")), (None, None)):
        user = await whose(tokens, issuer.token(jti=jti))
        assert (user.token_id, user.key) == (name, subject_key(issuer.url, "alice"))
        assert user.marks is not None
        assert user.marks.subject == user.key
    await tokens.aclose()


@pytest.mark.parametrize(
    ("algorithms", "said"),
    [
        ((), "none is allowed; choose among RS256, "),
        (("HS256", "none"), "HS256, none cannot be allowed; choose among "),
        (("ES256", "Rs256"), r"Rs256 cannot be allowed; did you mean RS256\?"),
        (("eddsa",), r"eddsa cannot be allowed; did you mean EdDSA\?"),
    ],
)  # fmt: skip
def test_algorithms_that_cannot_be_allowed(algorithms: tuple[str, ...], said: str) -> None:
    """An algorithm with a shared secret, or one by a name that is only alike, is told of with what there is."""
    assert Issuer("https://id.test", "api").algorithms == ("RS256", "ES256", "EdDSA")
    with pytest.raises(ConfigError, match=f"^algorithms: {said}"):
        Issuer("https://id.test", "api", algorithms=algorithms)


async def test_a_token_is_verified_once_and_found_from_then_on(issuer: LocalIssuer) -> None:
    """What was verified for a request is found for the next, and counted; what people ask about is neither."""
    tokens, value = Tokens([issuer.accepted()]), issuer.token()
    await tokens.verify(value.encode())
    assert (tokens.hits, tokens.misses) == (0, 0)
    users = [await whose(tokens, value) for _ in range(3)]
    assert all(user is users[0] for user in users)
    assert (tokens.hits, tokens.misses) == (2, 1)
    await tokens.aclose()
