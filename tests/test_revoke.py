"""`Guard.revoke`: what an app's logout calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    Anonymous,
    AuthSettings,
    ConfigError,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    Introspection,
    Issuer,
    IssuerSettings,
    MemoryStore,
    RequestIDMiddleware,
    StoreUnavailableError,
    User,
    revoke,
)
from asgi_guard.apps.own_guard import guarded
from asgi_guard.policy.revocation import DEFAULT_TTL, EVER, LONGEST_TTL, MARGIN
from asgi_guard.revocation import Revocations, lives_of
from tests.asgi import Exchange, call, http_scope
from tests.guarded import KEY, settings
from tests.introspecting import CLIENT
from tests.middleware.limiting import Micros

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.stores import Store
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that logs out whoever calls it at `/logout`."""
    if scope["path"] == "/logout":
        await scope["state"]["guard"].revoke(scope["user"])
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def asked(guard: ASGIApp, path: str, headers: dict[str, str]) -> Exchange:
    lines = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return await call(guard, http_scope("GET", path, lines, state={"guard": guard}))


async def ask(guard: Guard, path: str, **headers: str) -> int:
    return (await asked(guard, path, headers)).status


async def failure(guard: Guard, **headers: str) -> BaseException | None:
    return (await asked(guard, "/logout", headers)).error


@pytest.mark.parametrize("shared", [False, True])
async def test_a_token_that_is_revoked_is_refused_from_then_on(
    issuer: LocalIssuer, server: Server, *, shared: bool
) -> None:
    """After a logout the token is refused, with the same store by every guard, and other tokens are not."""
    store = server.store() if shared else None
    guard = Guard(logout, settings(issuer), http_client=issuer.client, store=store)
    token, other = (f"Bearer {issuer.token('alice')}" for _ in range(2))
    assert await ask(guard, "/items", authorization=token) == 204
    assert await ask(guard, "/logout", authorization=token) == 204
    assert await ask(guard, "/items", authorization=token) == 401
    assert await ask(guard, "/items", authorization=other) == 204
    if shared:
        second = Guard(logout, settings(issuer), http_client=issuer.client, store=server.store())
        assert await ask(second, "/items", authorization=token) == 401
        assert second.store is not None
        await second.store.aclose()
    assert guard.store is not None
    await guard.store.aclose()


async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that revokes the request's own token at `/logout`, without knowing who guards it."""
    if scope["path"] == "/logout":
        await revoke(scope)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def test_the_guard_that_serves_the_request_revokes(issuer: LocalIssuer) -> None:
    """A token is revoked where it is looked up, without naming the guard, in one around another app too."""
    guard = Guard(leaving, settings(issuer), http_client=issuer.client)
    outer = RequestIDMiddleware(guard)
    for served in (guard, outer):
        token, other = (f"Bearer {issuer.token('alice')}" for _ in range(2))
        for path, headers, status in (
            ("/items", token, 204),
            ("/logout", token, 204),
            ("/items", token, 401),
            ("/items", other, 204),
        ):
            assert (await asked(served, path, {"authorization": headers})).status == status


async def test_what_a_request_cannot_revoke(issuer: LocalIssuer) -> None:
    """Where the request's token was not looked up, or there is none, that is told, and is no logout."""
    guard = Guard(leaving, settings(issuer), http_client=issuer.client)
    assert "token with an id" in str((await asked(guard, "/logout", {"x_api_key": KEY.decode()})).error)
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    without = Guard(leaving, GuardSettings(auth=auth), http_client=issuer.client)
    error = (await asked(without, "/logout", {"authorization": f"Bearer {issuer.token('alice')}"})).error
    assert isinstance(error, ConfigError)
    assert "no token of this request was looked up" in str(error)
    with pytest.raises(LookupError, match="did not pass a guard"):
        await revoke(http_scope())


def revoking_at(guard: Guard) -> ASGIApp:
    """An app whose log-out revokes at that guard, whoever serves it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["guard"] = guard
        await logout(scope, receive, send)

    return app


async def test_guards_within_one_another(issuer: LocalIssuer) -> None:
    """A token is revoked at each of the guards that a request passes."""
    inner = Guard(leaving, settings(issuer), http_client=issuer.client)
    outer = Guard(inner_guarded := RequestIDMiddleware(inner), settings(issuer), http_client=issuer.client)
    token = f"Bearer {issuer.token('alice')}"
    assert (await asked(outer, "/logout", {"authorization": token})).status == 204
    for served in (inner, outer, inner_guarded):
        assert (await asked(served, "/items", {"authorization": token})).status == 401


class Unwilling(MemoryStore):
    """A store that is gone whenever something is to be revoked."""

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        raise StoreUnavailableError("it is gone")


async def test_a_store_that_is_gone(issuer: LocalIssuer) -> None:
    """Where one of the stores does not answer, the token is revoked in the others, and the failure told."""
    inner = Guard(leaving, settings(issuer), http_client=issuer.client)
    outer = Guard(RequestIDMiddleware(inner), settings(issuer), http_client=issuer.client, store=Unwilling())
    token = f"Bearer {issuer.token('alice')}"
    assert isinstance((await asked(outer, "/logout", {"authorization": token})).error, StoreUnavailableError)
    assert (await asked(inner, "/items", {"authorization": token})).status == 401


async def test_others_are_revoked_from_anywhere(issuer: LocalIssuer) -> None:
    """Within a request that one guard serves, another's users can be revoked there: it is not the request's token."""
    public = Guard(logout, settings(issuer), http_client=issuer.client)

    async def staff(scope: Scope, receive: Receive, send: Send) -> None:
        await public.revoke_subject("alice")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    admin = Guard(staff, settings(issuer), http_client=issuer.client)
    token = f"Bearer {issuer.token('alice')}"
    assert await ask(public, "/items", authorization=token) == 204
    assert await ask(admin, "/", authorization=f"Bearer {issuer.token('root')}") == 204
    assert await ask(public, "/items", authorization=token) == 401


async def test_a_guard_that_does_not_serve_the_request(issuer: LocalIssuer, server: Server) -> None:
    """A guard raises that is to revoke within a request that another one serves by another store; not by the same."""
    elsewhere = Guard(logout, settings(issuer), http_client=issuer.client)
    token = f"Bearer {issuer.token('alice')}"
    for revoking in (elsewhere, Guard(logout, GuardSettings())):
        serving = Guard(revoking_at(revoking), settings(issuer), http_client=issuer.client)
        found = await asked(serving, "/logout", {"authorization": token})
        assert found.status == 500
        assert "another Guard serves this request" in str(found.error)
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    unlooking = Guard(revoking_at(elsewhere), GuardSettings(auth=auth), http_client=issuer.client)
    assert "another Guard serves this request" in str(
        (await asked(unlooking, "/logout", {"authorization": token})).error
    )
    stores = server.store(), server.store()
    other = Guard(logout, settings(issuer), http_client=issuer.client, store=stores[0])

    serving = Guard(revoking_at(other), settings(issuer), http_client=issuer.client, store=stores[1])
    assert await ask(serving, "/logout", authorization=token) == 204
    assert await ask(serving, "/items", authorization=token) == 401
    for store in stores:
        await store.aclose()


async def test_what_cannot_be_revoked_is_said(issuer: LocalIssuer) -> None:
    """Where nobody looks revocations up, and for an API key, the call fails; nothing seems done that is not."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client)
    assert "token with an id" in str(await failure(guard, x_api_key=KEY.decode()))
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    without = Guard(logout, GuardSettings(auth=auth), http_client=issuer.client)
    assert without.store is None
    error = await failure(without, authorization=f"Bearer {issuer.token('alice')}")
    assert isinstance(error, ConfigError)
    assert "AUTH_REVOCATION" in str(error)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_subject_is_revoked_up_to_now(issuer: LocalIssuer, server: Server, *, shared: bool) -> None:
    """What was issued to a subject before is refused on the very next request, remembered or not; nothing else is."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client, store=server.store() if shared else None)
    old, fresh, other = (f"Bearer {issuer.token(name)}" for name in ("alice", "alice", "bob"))
    ahead = f"Bearer {issuer.token('alice', iat=int(time.time()) + 20)}"
    without = f"Bearer {issuer.token('alice', iat=None)}"
    for token in (old, other, ahead, without):
        assert await ask(guard, "/items", authorization=token) == 204
    await guard.revoke_subject("alice")
    statuses = [await ask(guard, "/items", authorization=token) for token in (old, fresh, other, ahead, without)]
    assert statuses == [401, 401, 204, 204, 401]
    assert await ask(guard, "/items", x_api_key=KEY.decode()) == 204
    assert guard.store is not None
    await guard.store.aclose()


@pytest.mark.parametrize("shared", [False, True])
async def test_a_session_is_revoked(issuer: LocalIssuer, server: Server, *, shared: bool) -> None:
    """Every token of a session is refused, one that is issued later too, and no token of another session."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client, store=server.store() if shared else None)
    token, other = (f"Bearer {issuer.token('alice', sid=sid)}" for sid in ("s1", "s2"))
    assert [await ask(guard, "/items", authorization=each) for each in (token, other)] == [204, 204]
    await guard.revoke_session("s1", issuer=issuer.url)
    later = f"Bearer {issuer.token('alice', sid='s1', iat=int(time.time()) + 20)}"
    assert [await ask(guard, "/items", authorization=each) for each in (token, other, later)] == [401, 204, 401]
    assert guard.store is not None
    await guard.store.aclose()


@pytest.mark.parametrize(("expires", "kept"), [(0.0, 0.0), (float("inf"), LONGEST_TTL)])
async def test_for_how_long_a_token_is_revoked_is_told(expires: float, kept: float) -> None:
    """That is for the rest of its life: no time if it has ended, and not for ever if it never does."""
    assert await Revocations(MemoryStore(), {}).token(User("alice", token_id="t", expires=expires)) == kept


@pytest.mark.parametrize("left", [-20, 20])
async def test_a_revocation_outlasts_its_token(left: float) -> None:
    """A token that ended here, and not yet where the clock is behind or the leeway longer, is refused there too."""
    clock = Micros()
    store = MemoryStore(clock=clock)
    await Revocations(store, {}).token(User("alice", token_id="t", expires=time.time() + left))
    clock.pass_seconds(max(0, left) + MARGIN - 10)
    assert store.judge((), "t").revoked
    clock.pass_seconds(20)
    assert not store.judge((), "t").revoked


@pytest.mark.parametrize("shared", [False, True])
async def test_a_token_is_revoked_for_guards_that_take_it_for_longer(
    issuer: LocalIssuer, server: Server, *, shared: bool
) -> None:
    """A token is refused until it ends as it was signed, though the guard that revoked it bounds its age to less."""
    clock = Micros()
    store: Store = server.store() if shared else MemoryStore(clock=clock)
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), revocation=True, max_token_age=60)
    brief = Guard(logout, GuardSettings(auth=auth), http_client=issuer.client, store=store)
    long = Guard(logout, settings(issuer), http_client=issuer.client, store=store)
    token = f"Bearer {issuer.token('alice', lifetime=3600)}"
    assert await ask(brief, "/logout", authorization=token) == 204
    if isinstance(store, MemoryStore):
        clock.pass_seconds(60 + 2 * MARGIN)
    else:
        (key,) = server.client.keys("asgi-guard:revoked:*")
        assert server.client.pttl(key) > 1000 * (3600 + MARGIN - 60)
    assert await ask(long, "/items", authorization=token) == 401
    await store.aclose()


@pytest.mark.parametrize(("ends", "kept"), [(None, LONGEST_TTL), (60, DEFAULT_TTL), (2 * DEFAULT_TTL, 2 * DEFAULT_TTL)])
async def test_an_opaque_token_that_tells_no_end(ends: float | None, kept: float) -> None:
    """It is revoked for as long as may be; where its age is bounded here, for 30 days at least."""
    user = User("alice", claims={"jti": "t"}, token_id="t", expires=None if ends is None else time.time() + ends)
    assert await Revocations(MemoryStore(), {}).token(user) == pytest.approx(kept, abs=5)


async def test_a_session_that_is_no_text_is_refused(issuer: LocalIssuer) -> None:
    """A token whose session could not be looked up is not accepted."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client)
    for sid in (5, ["s1"], ""):
        assert await ask(guard, "/items", authorization=f"Bearer {issuer.token('alice', sid=sid)}") == 401


async def test_revocations_that_could_not_hold_are_refused(issuer: LocalIssuer) -> None:
    """An unknown issuer, one that is not said among several, no name, and a life that tokens outlast are errors."""
    partner = IssuerSettings(issuer="https://partner.test", audience=("api",))
    auth = AuthSettings(
        issuer=issuer.url, audience=(issuer.audience,), issuers=(partner,), revocation=True, max_token_age=900
    )
    guard = Guard(logout, GuardSettings(auth=auth), http_client=issuer.client)
    for revoking in (guard.revoke_subject, guard.revoke_session):
        with pytest.raises(ValueError, match=r"of which issuer: .*partner\.test"):
            await revoking("alice")
        with pytest.raises(ValueError, match="none of the issuers"):
            await revoking("alice", issuer="https://else.test")
        with pytest.raises(ValueError, match="accepted for 960 s"):
            await revoking("alice", issuer=issuer.url, ttl=900)
        with pytest.raises(ValueError, match="has a name"):
            await revoking("", issuer=issuer.url)
        await revoking("alice", issuer=issuer.url, ttl=960)
    off = Guard(logout, GuardSettings(auth=auth.model_copy(update={"revocation": False})), http_client=issuer.client)
    with pytest.raises(ConfigError, match="AUTH_REVOCATION"):
        await off.revoke_subject("alice", issuer=issuer.url)


@pytest.mark.parametrize(
    ("signed", "opaque", "kept"), [(60, 900, 960), (900, 60, 960), (None, 900, DEFAULT_TTL), (900, None, DEFAULT_TTL)]
)
async def test_an_issuer_of_both_sorts_of_tokens(signed: float | None, opaque: float | None, kept: float) -> None:
    """Its revocations are kept for as long as tokens of either sort can be accepted."""
    both = Issuer("https://id.example", "api", max_token_age=signed)
    asked = Introspection(
        "https://id.example/introspect", *CLIENT, issuer=both.issuer, audience="api", max_token_age=opaque
    )
    lives = lives_of(IdentityMiddleware(logout, issuers=[both], introspection=asked))
    revoking = Revocations(MemoryStore(), lives)
    assert [await revoking.subject("alice", None, None), await revoking.session("s1", None, None)] == [kept, kept]


@pytest.mark.parametrize(
    ("revoking", "said"),
    [
        (lambda guard: guard.revoke("alice"), "user: it is of the type str: give the one of a request that was"),
        (lambda guard: guard.revoke(None), "user: it is of the type NoneType: give the one"),
        (lambda guard: guard.revoke(Anonymous()), "user: it is of the type Anonymous: give the one"),
        (lambda guard: guard.revoke_subject(5), "subject: it is of the type int: give a text"),
        (lambda guard: guard.revoke_session(b"s", issuer=5), "session_id: .* give a text; issuer: .* give a text or"),
        (lambda guard: guard.revoke_subject("alice", ttl="x"), "ttl: it is of the type str: give a number or None"),
        (lambda guard: revoke(None), "scope: it is of the type NoneType: give that of the request, as request.scope"),  # type: ignore[arg-type]  # as a user may
        (lambda guard: revoke("alice"), "scope: it is of the type str"),  # type: ignore[arg-type]  # likewise
    ],
)
async def test_what_cannot_be_revoked(
    issuer: LocalIssuer, revoking: Callable[[Any], Awaitable[None]], said: str
) -> None:
    """An argument of another type is told by its name, with what to give."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client)
    with pytest.raises(TypeError, match=f"^{said}"):
        await revoking(guard)


def test_a_guard_is_not_guarded_again(issuer: LocalIssuer) -> None:
    """An app that brings a guard along keeps it; any other gets one."""
    guard = Guard(logout, settings(issuer))
    assert guarded(guard) is guard
    made = guarded(logout)
    assert isinstance(made, Guard)
    assert made.app is logout
