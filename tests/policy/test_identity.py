"""Who a request comes from, what the app sees of it, and which verified tokens are remembered."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.authentication import has_required_scope
from starlette.requests import HTTPConnection

from asgi_guard.errors import ConfigError
from asgi_guard.policy.identity import (
    ANONYMOUS,
    NO_AUTH,
    APIKey,
    Auth,
    Marks,
    User,
    api_key_digest,
    names_of_one_key,
    revocation_key,
    store_key,
    was_looked_for,
)  # fmt: skip
from asgi_guard.policy.keys import KeySet
from asgi_guard.policy.token_cache import AT_ONCE, LIFETIME, TokenCache
from tests.asgi import http_scope

USER = User("alice", ("read", "write"), MappingProxyType({"sub": "alice"}), "https://issuer.test", expires=1000.0)


def test_starlette_sees_a_user() -> None:
    """What stands in the scope is what Starlette's `request.user`, `request.auth` and `@requires` ask for."""
    connection = HTTPConnection(http_scope(user=USER, auth=Auth(USER.scopes)))
    user: Any = connection.user
    assert (user.is_authenticated, user.display_name, user.identity) == (True, "alice", "alice")
    assert has_required_scope(connection, ["read"])
    assert not has_required_scope(connection, ["read", "admin"])


def test_starlette_sees_nobody() -> None:
    """Where no identity was shown, the same attributes are there, and say so."""
    connection = HTTPConnection(http_scope(user=ANONYMOUS, auth=NO_AUTH))
    user: Any = connection.user
    assert (user.is_authenticated, user.display_name, user.identity, user.subject) == (False, "", "", "")
    assert not has_required_scope(connection, ["read"])


def test_an_identity_cannot_be_changed() -> None:
    """Neither a user nor the user's claims can be written to: they are shared between requests."""
    with pytest.raises(AttributeError):
        USER.subject = "mallory"  # type: ignore[misc]  # what is tested is that this fails
    with pytest.raises(TypeError):
        USER.claims["sub"] = "mallory"  # type: ignore[index]  # what is tested is that this fails
    with pytest.raises(TypeError):
        User("bob").claims["sub"] = "mallory"  # type: ignore[index]  # what is tested is that this fails


def test_a_user_shows_no_claims() -> None:
    """Printed or logged, a user does not show what else the token said; nor does a key its hash."""
    shown = repr(User("alice", claims={"email": "alice@example.org"}, marks=Marks("session", "subject")))
    assert not any(word in shown for word in ("claims", "marks", "auth", "example.org", "session"))
    assert "0000" not in repr(APIKey("billing", "0" * 64))


def test_a_user_can_be_counted() -> None:
    """A user can stand in a set, whatever its claims hold, and has its scopes in the shape of `scope["auth"]`."""
    assert len({User("alice", claims={"groups": []}), User("alice", claims={"groups": []})}) == 1
    assert USER.auth == Auth(("read", "write"))


def test_who_was_looked_for() -> None:
    """What an Identity layer puts into the scope says that one was there; what others put there does not."""
    assert [was_looked_for(user) for user in (USER, ANONYMOUS, None, "alice")] == [True, True, False, False]


def test_a_name_in_the_store_is_short_and_tells_nothing() -> None:
    """A store name is 32 hexadecimal digits, whatever the subject holds, lone surrogates too."""
    for subject in ("", "alice", "a" * 100_000, "\0\r\n{}", "\ud800"):
        name = store_key("user", "https://issuer.test", subject)
        assert len(name) == 32
        assert set(name) <= set("0123456789abcdef")


plain = st.text(st.characters(exclude_characters="\0"), max_size=5)


@given(first=st.tuples(plain, plain, st.text(max_size=5)), second=st.tuples(plain, plain, st.text(max_size=5)))
@example(first=("user", "a", "bc"), second=("user", "ab", "c"))
@example(first=("user", "a", "b\0c"), second=("user", "a", "b"))
def test_names_in_the_store_do_not_collide(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    """Two names are equal only for the same kind, issuer and subject, whatever the subject holds."""
    assert (store_key(*first) == store_key(*second)) == (first == second)


def test_issuers_revoke_their_own_tokens_only() -> None:
    """The same token id of two issuers has two names among the revoked, and neither is a user's."""
    names = {
        revocation_key("https://a.test", "1"),
        revocation_key("https://b.test", "1"),
        revocation_key("https://a.test", "2"),
        store_key("user", "https://a.test", "1"),
    }
    assert len(names) == 4


def test_an_api_key_is_a_user() -> None:
    """Whoever shows an API key is known by its name, has its scopes, and never expires."""
    user = APIKey("billing", api_key_digest(b"secret"), ("read",)).user()
    assert (user.subject, user.scopes, user.kind, user.issuer, user.token_id) == (
        "billing", ("read",), "api-key", None, None,
    )  # fmt: skip
    assert user.expires is None
    assert user.key == store_key("api-key", "billing")
    assert user.is_authenticated


def test_api_keys_are_kept_by_their_sha_256() -> None:
    """The digest of a key is the SHA-256 that `sha256sum` writes."""
    assert api_key_digest(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert APIKey("billing", "0123456789abcdef" * 4).user().subject == "billing"


@pytest.mark.parametrize("name", ["a", "a" * 128, "ä b"])
def test_the_longest_name_of_an_api_key(name: str) -> None:
    """A name has 1 to 128 characters, of any alphabet."""
    assert APIKey(name, "0" * 64).user().subject == name


@pytest.mark.parametrize("name", ["", "a" * 129, "a\nb", "a\0", "\x1b[31m", "\u202e", "\ud800"])
def test_the_name_of_an_api_key_is_printable(name: str) -> None:
    """A name that is empty, too long or not printable is refused, for it stands in logs."""
    with pytest.raises(ValueError, match="printable"):
        APIKey(name, "0" * 64)


@pytest.mark.parametrize(
    "digest", ["", "secret", "0" * 63, "0" * 65, "A" * 64, "g" * 64, " " + "0" * 63, "\uff10" * 64]
)
def test_an_api_key_is_given_by_its_hash(digest: str) -> None:
    """Anything but a SHA-256 in lower-case hexadecimal digits is refused, and not repeated in the message."""
    with pytest.raises(ValueError, match="SHA-256") as caught:
        APIKey("billing", digest)
    assert not digest or digest not in str(caught.value)
    assert "billing" not in str(caught.value)


@pytest.mark.parametrize("columns", [{"name": 5}, {"sha256": b"0" * 64}, {"plan": 5}])
def test_an_api_keys_parts_are_texts(columns: dict[str, Any]) -> None:
    """A part of another type is an error that names it."""
    with pytest.raises(ConfigError) as caught:
        APIKey(**{"name": "billing", "sha256": "0" * 64, **columns})
    assert [problem.name for problem in caught.value.problems] == list(columns)


@pytest.mark.parametrize(("keys", "doubles"), [("", 0), ("ab", 0), ("aab", 1), ("aba", 1), ("abab", 2), ("aaa", 1)])
def test_one_key_has_one_name(keys: str, doubles: int) -> None:
    """A key of which there are several is told of once; whose it is would be chance."""
    said = list(names_of_one_key([APIKey(f"name {index}", key * 64) for index, key in enumerate(keys)]))
    assert len(said) == doubles
    assert all("another name too" in each for each in said)


def test_an_api_keys_scopes_are_several() -> None:
    """One text would be taken for scopes of a letter each."""
    with pytest.raises(ValueError, match=r"write scopes=\('deploy',\)"):
        APIKey("billing", "0" * 64, "deploy")  # type: ignore[arg-type]  # that is what is tested


def test_an_api_keys_scopes_may_be_a_list() -> None:
    """A list is as good as a tuple, and is none any more: whoever shows the key is a value, which no app changes."""
    scopes: Any = ["read", "write"]
    key = APIKey("billing", "0" * 64, scopes)
    assert key == APIKey("billing", "0" * 64, ("read", "write"))
    scopes.append("admin")
    assert key.user().scopes == ("read", "write")
    assert hash(key.user()) == hash(APIKey("billing", "0" * 64, ("read", "write")).user())


@pytest.mark.parametrize("scopes", [5, None, b"read", [5], ("read", None)])
def test_an_api_keys_scopes_are_texts(scopes: Any) -> None:
    """What is no list of texts is refused where the key is made, and not by the first request that shows it."""
    with pytest.raises(ConfigError, match='give several texts, as in \\("deploy",\\)'):
        APIKey("billing", "0" * 64, scopes)


def test_an_api_key_is_not_empty() -> None:
    """The hash of nothing, as a shell makes it of a variable that is not set, would let in an empty header."""
    with pytest.raises(ValueError, match="the SHA-256 of nothing"):
        APIKey("billing", api_key_digest(b""))


KEYS = KeySet(())


def test_a_remembered_token_is_its_users() -> None:
    """A token that was put in is found with its user and the keys that verified it; another is not."""
    cache, keys = TokenCache(), KeySet(())
    cache.put(cache.digest(b"token"), USER, 100.0, keys)
    assert cache.get(cache.digest(b"token"), 100.0) == (USER, keys)
    assert cache.get(cache.digest(b"token "), 100.0) is None
    assert len(cache) == 1


@pytest.mark.parametrize(
    ("expires", "until"), [(1000.0, 160.0), (float("inf"), 160.0), (None, 160.0), (160.0, 160.0), (130.5, 130.5)]
)
def test_a_token_is_remembered_for_a_minute_and_never_past_its_end(expires: float | None, until: float) -> None:
    """An entry counts until a minute has passed or the token ends, and is gone from then on."""
    cache = TokenCache()
    cache.put(b"d", User("alice", expires=expires), 100.0, KEYS)
    assert cache.get(b"d", until - 0.001) is not None
    assert cache.get(b"d", until) is None
    assert len(cache) == 0
    assert cache.get(b"d", 100.0) is None


def test_a_forgotten_token_is_not_found() -> None:
    """Forgetting drops an entry, and is nothing where there is none."""
    cache = TokenCache()
    cache.put(b"d", USER, 100.0, KEYS)
    cache.forget(b"d")
    cache.forget(b"d")
    assert cache.get(b"d", 100.0) is None


def test_the_oldest_entry_leaves_first() -> None:
    """A full cache drops its oldest entry for a new token, and none for a token that it holds."""
    cache = TokenCache(2)
    for digest in (b"1", b"2", b"2"):
        cache.put(digest, USER, 100.0, KEYS)
    assert cache.get(b"1", 100.0) is not None
    cache.put(b"3", USER, 100.0, KEYS)
    assert [cache.get(digest, 100.0) is not None for digest in (b"1", b"2", b"3")] == [False, True, True]


def test_what_is_over_leaves_as_others_come() -> None:
    """After a crowd, tokens that come one at a time clear it away, a few with each, and what counts yet stays."""
    cache, kept = TokenCache(), []
    for number in range(1000):
        cache.put(b"crowd %d" % number, USER, 100.0, KEYS)
    for number in range(80):
        cache.put(b"late %d" % number, USER, 161.0 + number / 2, KEYS)
        kept.append(len(cache))
    assert kept[0] >= 1000 - 2 * AT_ONCE
    assert kept[-1] == 80
    cache.put(b"crowd 0", USER, 222.0, KEYS)
    assert [cache.get(b"late %d" % number, 222.0) is not None for number in (0, 3)] == [False, True]
    assert len(cache) == 78


def test_a_cache_of_one_remembers_the_last() -> None:
    """The smallest cache that remembers anything holds the token that came last."""
    cache = TokenCache(1)
    for digest in (b"1", b"2"):
        cache.put(digest, USER, 100.0, KEYS)
        assert (cache.get(digest, 100.0), len(cache)) == ((USER, KEYS), 1)


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_of_no_size_remembers_nothing(size: int) -> None:
    """With a size of 0, putting a token in is nothing, and none is ever found."""
    cache = TokenCache(size)
    cache.put(b"d", USER, 100.0, KEYS)
    assert (cache.get(b"d", 100.0), len(cache)) == (None, 0)


steps = st.tuples(st.sampled_from("pgf"), st.integers(0, 5), st.integers(0, 40), st.integers(0, 100))


@given(size=st.integers(0, 4), course=st.lists(steps, max_size=60))
def test_the_cache_never_says_what_was_not_put_in(size: int, course: list[tuple[str, int, int, int]]) -> None:
    """Over any course the cache stays within its size, and finds only the last user put in, within its time."""
    cache, now = TokenCache(size), 0.0
    put: dict[bytes, tuple[User, float]] = {}
    for action, number, gap, life in course:
        now += gap
        digest = b"%d" % number
        if action == "p":
            user = User(f"user {number} at {now}", expires=now + life)
            put[digest] = user, min(now + LIFETIME, now + life)
            cache.put(digest, user, now, KEYS)
        elif action == "f":
            put.pop(digest, None)
            cache.forget(digest)
        found = cache.get(digest, now)
        assert found is None or (found[0] is put[digest][0] and now < put[digest][1])
        assert found is not None or size == 0 or action != "p" or life == 0
        assert len(cache) <= size
