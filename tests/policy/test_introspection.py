"""What an issuer says of an opaque token, judged and remembered."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError, TokenError
from asgi_guard.policy.identity import User, revocation_key
from asgi_guard.policy.introspection import (
    IntrospectionCache,
    IntrospectionPolicy,
    IntrospectionTimes,
    is_opaque,
    issuer_of,
)
from asgi_guard.policy.revocation import marks_of, subject_key

NOW = 1_795_000_000.0
POLICY = IntrospectionPolicy("https://issuer.test", frozenset({"api", "b"}))
ANSWER = {"active": True, "sub": "alice", "aud": "api", "scope": "read write", "exp": NOW + 300}
ABSENT = object()
ENDLESS = {"exp": ABSENT, "token_type": "Bearer"}
ALICE = User("alice", expires=NOW + 1000)


def answer(**changes: object) -> dict[str, Any]:
    return {name: value for name, value in {**ANSWER, **changes}.items() if value is not ABSENT}


def test_an_active_token_names_its_user() -> None:
    """A positive answer gives the user, with scopes, issuer and end."""
    user = POLICY.user(answer(jti="1"), NOW)
    assert (user.subject, user.issuer, user.scopes, user.expires) == (
        "alice", "https://issuer.test", ("read", "write"), NOW + 330,
    )  # fmt: skip
    assert user.kind == "token"
    assert user.token_id == revocation_key("https://issuer.test", "1")
    assert user.key == subject_key("https://issuer.test", "alice")
    assert user.marks == marks_of("https://issuer.test", "alice", {})
    assert user.key == POLICY.user(answer(scope=""), NOW).key
    assert POLICY.user(answer(), NOW).token_id is None


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({"sub": "alice", "client_id": "shop", "username": "bob"}, "alice"),
        ({"client_id": None, "nbf": None, "iss": None, "cnf": None, "jti": None}, "alice"),
        ({"aud": ["other", "b"]}, "alice"),
        ({"iss": "https://issuer.test"}, "alice"),
        ({"exp": ABSENT, "token_type": "Bearer"}, "alice"),
        ({"exp": ABSENT, "token_use": "access_token"}, "alice"),
        ({"token_type": "bearer", "token_use": "access"}, "alice"),
        ({"token_type": "access_token"}, "alice"),
        ({"token_type": "client_credentials"}, "alice"),
        ({"token_type": "Bearer", "token_usage": "access_token"}, "alice"),
        ({"token_type": "Bearer", "typ": "Bearer"}, "alice"),
        ({"typ": "at+jwt", "token_type": None}, "alice"),
        ({"nbf": NOW + 29}, "alice"),
        ({"token_type": "Bearer", "username": "a"}, "alice"),
    ],
)
def test_answers_that_are_accepted(changes: dict[str, Any], subject: str) -> None:
    """Who is named is the subject; what an answer may leave out, it may, and what is null is left out."""
    assert POLICY.user(answer(**changes), NOW).subject == subject


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "inactive"),
        ([], "inactive"),
        ("active", "inactive"),
        ({}, "inactive"),
        ({"active": False}, "inactive"),
        (answer(active="true"), "inactive"),
        (answer(active=1), "inactive"),
        (answer(iss="https://other.test"), "issuer"),
        (answer(aud="other"), "audience"),
        (answer(aud=ABSENT), "audience"),
        (answer(aud=5), "audience"),
        (answer(sub=ABSENT), "claim"),
        (answer(sub=None), "claim"),
        (answer(sub=ABSENT, client_id="shop", username="alice"), "claim"),
        (answer(sub=""), "claim"),
        (answer(sub=5), "claim"),
        (answer(exp=NOW - 31), "expired"),
        (answer(exp="soon"), "claim"),
        (answer(exp=True), "claim"),
        (answer(nbf=NOW + 31), "not_yet_valid"),
        (answer(scope=5), "claim"),
        (answer(cnf={"jkt": "x"}), "claim"),
        (answer(jti=5), "claim"),
    ],
)
def test_answers_that_are_refused(said: object, reason: str) -> None:
    """Whatever is not the whole of a positive answer is refused, with the reason for the log."""
    with pytest.raises(TokenError) as caught:
        POLICY.user(said, NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("members", "said", "subject"),
    [
        (("username",), {"username": "alice"}, "alice"),
        (("username",), {"sub": "17", "username": "alice"}, "17"),
        (("username", "client_id"), {"username": "alice", "client_id": "shop"}, "alice"),
        (("username", "client_id"), {"username": None, "client_id": "shop"}, "client:shop"),
        (("client_id",), {"username": "alice", "client_id": "shop"}, "client:shop"),
        (("user_id",), {"user_id": "client:shop"}, "client:shop"),
    ],
)
def test_what_names_somebody_in_the_place_of_a_subject(
    members: tuple[str, ...], said: dict[str, Any], subject: str
) -> None:
    """Without `sub`, the first member that the operator names says who it is; a client is told apart from users."""
    user = replace(POLICY, unsafe_subject=members).user(answer(sub=ABSENT) | said, NOW)
    assert (user.subject, user.key) == (subject, subject_key("https://issuer.test", subject))
    assert user.marks is not None
    assert user.marks.subject == user.key


@pytest.mark.parametrize(
    ("members", "said", "detail"),
    [
        ((), {"username": "alice", "client_id": "shop"}, "sub is missing: the answer does not say whose it is"),
        (("username",), {"client_id": "shop"}, "sub is missing, and so is username: the answer does not say"),
        (("username", "client_id"), {}, "sub is missing, and so are username, client_id: "),
        (("username",), {"username": 17}, "username is not a string, or is empty"),
        (("username",), {"username": ""}, "username is not a string, or is empty"),
        (("username", "client_id"), {"username": "client:shop"}, "username is 'client:shop', and what begins with"),
        (("client_id",), {"sub": "client:shop"}, "sub is 'client:shop', and what begins with client: is a client"),
    ],
)
def test_who_is_nobody(members: tuple[str, ...], said: dict[str, Any], detail: str) -> None:
    """Whoever is not named is refused, each user of a client too, and so is a user who would be taken for a client."""
    with pytest.raises(TokenError, match=detail) as caught:
        replace(POLICY, unsafe_subject=members).user(answer(sub=ABSENT) | said, NOW)
    assert caught.value.reason == "claim"


def test_what_was_answered_cannot_be_changed() -> None:
    """An app that changes what it reads of a user changes no other request's: it is told that it cannot."""
    user = POLICY.user(answer(realm_access={"roles": ["user"]}), NOW)
    with pytest.raises(TypeError, match="read-only"):
        user.claims["realm_access"]["roles"].append("admin")
    with pytest.raises(TypeError, match="read-only"):
        user.claims["realm_access"]["admin"] = True
    assert user.claims["realm_access"] == {"roles": ["user"]}


def test_an_answer_that_is_nested_too_deep_is_refused() -> None:
    """However deep an answer is nested, it is refused as one that does not fit."""
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(TokenError, match="nested deeper than any claims set"):
        POLICY.user(answer(tenant=nested), NOW)


def test_an_api_that_takes_any_audience_says_so() -> None:
    """Without an audience of its own, an API takes tokens of any, and of none."""
    anyone = IntrospectionPolicy("https://issuer.test", frozenset())
    assert anyone.user(answer(aud=ABSENT), NOW).subject == "alice"
    assert anyone.user(answer(aud="other"), NOW).subject == "alice"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"token_use": "refresh_token"}, "token_use is 'refresh_token': it is no access token"),
        ({"token_use": "refresh_token", "token_type": "Bearer"}, "token_use is 'refresh_token'"),
        ({"token_type": "Bearer", "token_usage": "refresh_token"}, "token_usage is 'refresh_token'"),
        ({"token_type": "refresh_token"}, "token_type is 'refresh_token'"),
        ({"token_type": "N_A"}, "token_type is 'N_A'"),
        ({"token_type": ""}, "token_type is ''"),
        ({"token_type": ["Bearer"]}, "token_type is "),
        ({"token_type": "mac"}, "token_type is 'mac'"),
        ({"token_type": "DPoP"}, "token_type is 'DPoP': it is bound to a key, of which nobody asks for a proof here"),
        ({"token_type": "dpop"}, "token_type is 'dpop': it is bound to a key"),
        ({"typ": "Refresh"}, "typ is 'Refresh'"),
        ({"typ": "Offline", "exp": ABSENT}, "typ is 'Offline'"),
        ({"typ": "ID", "token_type": "Bearer"}, "typ is 'ID'"),
        ({"exp": ABSENT}, "neither exp nor token_type is there: it may be a refresh token, which nobody ends"),
        ({"exp": ABSENT, "token_type": None}, "neither exp nor token_type is there"),
        ({"exp": ABSENT, "typ": "JWT"}, "neither exp nor token_type is there"),
    ],
)
def test_only_access_tokens_are_accepted(changes: dict[str, Any], detail: str) -> None:
    """Endpoints answer for refresh tokens too: what is told to be another sort of token, or may be one, is refused."""
    with pytest.raises(TokenError, match=re.escape(detail)) as caught:
        POLICY.user(answer(**changes), NOW)
    assert caught.value.reason == "type"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ABSENT},
        {"token_type": "mac"},
        {"token_type": "N_A", "exp": ABSENT},
        {"token_use": "refresh_token"},
        {"token_usage": "reference"},
        {"typ": "Offline"},
    ],
)
def test_an_api_that_takes_any_sort_of_token_says_so(changes: dict[str, Any]) -> None:
    """Where the operator says so, a token counts whatever sort it is said to be, for as long as it is active."""
    user = replace(POLICY, unsafe_any_type=True).user(answer(**changes), NOW)
    assert (user.subject, user.expires) == ("alice", None if "exp" in changes else NOW + 330)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token_type": "DPoP"}, "type"),
        ({"token_type": "dpop", "token_use": "access_token"}, "type"),
        ({"cnf": {"jkt": "x"}, "exp": ABSENT}, "claim"),
        ({"exp": NOW - 31, "token_type": "mac"}, "expired"),
        ({"active": False, "exp": ABSENT}, "inactive"),
        ({"aud": "other", "exp": ABSENT}, "audience"),
    ],
)
def test_what_any_sort_of_token_has_to_be(changes: dict[str, Any], reason: str) -> None:
    """A token that is bound to a key is refused all the same, and so is one that is over, or is for another API."""
    with pytest.raises(TokenError) as caught:
        replace(POLICY, unsafe_any_type=True).user(answer(**changes), NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("rule", "changes", "reason", "detail"),
    [
        ({"required": (("tenant", "acme"),)}, {}, "claim", "tenant is missing, and it is required"),
        ({"required": (("tenant", "acme"),)}, {"tenant": "evil"}, "claim", "tenant is 'evil', not 'acme'"),
        ({"required": (("iss", None),)}, {}, "claim", "iss is missing, and it is required"),
        ({"max_age": 300}, {"iat": NOW - 331}, "too_old", "331 s ago"),
        ({"max_age": 300}, {"iat": 1, **ENDLESS}, "too_old", "300 are allowed"),
        ({"max_age": 300}, {}, "claim", "iat is missing, and the token's age is bounded"),
        ({"max_lifetime": 900}, {"iat": NOW - 1, "exp": NOW + 900}, "too_long", "900 are allowed"),
        ({"max_lifetime": 900}, {}, "claim", "iat is missing, and the token's age is bounded"),
        (
            {"max_lifetime": 900},
            {"iat": NOW, **ENDLESS},
            "claim",
            "exp is missing, and the token's life is bounded",
        ),
    ],
)
def test_what_an_api_asks_beyond_that(rule: dict[str, Any], changes: dict[str, Any], reason: str, detail: str) -> None:
    """Required members, age and life hold for what is answered; a bound that cannot be told refuses, and says why."""
    with pytest.raises(TokenError, match=detail) as caught:
        replace(POLICY, **rule).user(answer(**changes), NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("rule", "changes", "expires"),
    [
        ({"required": (("aud", "b"), ("tenant", None))}, {"aud": ["b", "c"], "tenant": "x"}, NOW + 330),
        ({"required": (("aud", "z"),), "audience": frozenset()}, {"aud": "z"}, NOW + 330),
        ({"max_age": 300}, {"iat": NOW - 100}, NOW + 230),
        ({"max_age": 300}, {"iat": NOW - 100, **ENDLESS}, NOW + 230),
        ({"max_lifetime": 900}, {"iat": NOW - 600}, NOW + 330),
        ({}, ENDLESS, None),
    ],
)
def test_what_fits_all_that_is_asked(rule: dict[str, Any], changes: dict[str, Any], expires: float | None) -> None:
    """A token within the bounds is accepted, and not for longer than the age that it may reach."""
    assert replace(POLICY, **rule).user(answer(**changes), NOW).expires == expires


@pytest.mark.parametrize(
    ("url", "issuers", "main", "issuer"),
    [
        ("https://b.test/i", ["https://a.test", "https://b.test"], "https://a.test", "https://b.test"),
        ("https://B.test:443/i", ["https://a.test", "https://b.test/x"], "https://a.test", "https://b.test/x"),
        ("https://b.test:8443/i", ["https://a.test", "https://b.test"], "https://a.test", ""),
        ("https://c.test/i", ["https://a.test", "https://b.test"], "https://a.test", ""),
        ("https://b.test/i", ["https://b.test/x", "https://b.test/y"], "https://b.test/x", ""),
        ("http://b.test:80/i", ["https://b.test", "http://b.test/x"], None, "http://b.test/x"),
        ("https://c.test/i", ["https://a.test/x"], "https://a.test/x", "https://a.test/x"),
        ("https://c.test/i", ["https://a.test"], None, ""),
        ("https://a.test/i", ["https://a.test/x"], None, "https://a.test/x"),
        ("https://c.test/x/i", [], None, "https://c.test"),
        ("https://[", [], None, ""),
        ("https://[", ["https://a.test"], "https://a.test", "https://a.test"),
    ],
)
def test_whose_tokens_an_endpoint_tells_of(url: str, issuers: list[str], main: str | None, issuer: str) -> None:
    """It is the only issuer of the endpoint's origin, or the main one if it is alone, and nobody is guessed at."""
    assert issuer_of(url, issuers, main) == issuer


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.one_of(json, st.dictionaries(st.sampled_from([*ANSWER, "iss", "nbf", "iat", "jti", "client_id", "cnf"]), json))
)
@example({"active": True})
@example(answer(exp=float("inf")))
def test_any_answer_is_refused_or_names_somebody(said: object) -> None:
    """Any JSON is refused with a token error, or names a user."""
    try:
        user = POLICY.user(said, NOW)
    except TokenError:
        return
    assert user.subject


@pytest.mark.parametrize(
    ("later", "fresh", "stale"),
    [
        (-1, False, False),
        (0, True, True),
        (59.9, True, True),
        (60, False, True),
        (359, False, True),
        (360, False, False),
    ],
)
def test_a_positive_answer_counts_for_a_while(later: float, fresh: bool, stale: bool) -> None:
    """A positive answer counts for a minute, and in an outage for five more; a clock that went back counts for none."""
    cache = IntrospectionCache(IntrospectionTimes())
    cache.accept(b"t", ALICE, NOW)
    assert (cache.fresh(b"t", NOW + later) is ALICE) is fresh
    assert (cache.stale(b"t", NOW + later) is ALICE) is stale
    assert cache.fresh(b"other", NOW) is None
    assert cache.stale(b"other", NOW) is None


def test_an_answer_without_an_end_counts_as_long() -> None:
    """A token of which nobody says when it ends is remembered as long as any other."""
    cache, user = IntrospectionCache(IntrospectionTimes()), User("alice")
    cache.accept(b"t", user, NOW)
    assert [cache.fresh(b"t", NOW + later) is user for later in (0, 59.9, 60)] == [True, True, False]
    assert [cache.stale(b"t", NOW + later) is user for later in (60, 359, 360)] == [True, True, False]


@pytest.mark.parametrize("name", ["positive", "negative", "stale_for"])
@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
def test_times_that_make_no_sense(name: str, seconds: Any) -> None:
    """A time that is negative or no number is an error that names it."""
    with pytest.raises(ConfigError) as caught:
        IntrospectionTimes(**{name: seconds})
    assert [problem.name for problem in caught.value.problems] == [name]


def test_no_answer_counts_past_the_tokens_end() -> None:
    """A token that has ended is not accepted by what was said of it before, outage or not."""
    cache = IntrospectionCache(IntrospectionTimes())
    cache.accept(b"t", User("alice", expires=NOW + 5), NOW)
    assert cache.fresh(b"t", NOW + 4) is not None
    assert cache.fresh(b"t", NOW + 5) is None
    assert cache.stale(b"t", NOW + 5) is None


def test_a_negative_answer_counts_for_less() -> None:
    """A negative answer counts for ten seconds, and takes the place of a positive one."""
    cache = IntrospectionCache(IntrospectionTimes())
    cache.accept(b"t", ALICE, NOW)
    cache.refuse(b"t", "inactive", NOW)
    for later in (0.0, 9.9):
        with pytest.raises(TokenError) as caught:
            cache.fresh(b"t", NOW + later)
        assert caught.value.reason == "inactive"
    assert cache.fresh(b"t", NOW + 10) is None
    assert cache.stale(b"t", NOW) is None
    cache.accept(b"t", ALICE, NOW)
    assert cache.fresh(b"t", NOW) is ALICE


def test_made_up_tokens_drive_out_no_good_one() -> None:
    """However many tokens are refused, what is known of good ones stays, and neither takes more room than it has."""
    cache = IntrospectionCache(IntrospectionTimes(), size=3)
    for name in (b"a", b"b", b"c"):
        cache.accept(name, ALICE, NOW)
    for number in range(100):
        cache.refuse(b"%d" % number, "inactive", NOW)
    assert all(cache.fresh(name, NOW) is ALICE for name in (b"a", b"b", b"c"))
    assert cache.fresh(b"0", NOW) is None
    cache.accept(b"d", ALICE, NOW)
    assert cache.fresh(b"a", NOW) is None


def test_who_is_asked_about_again_counts_as_new() -> None:
    """An answer takes the place of the one before, of either sort, and no room of others; the oldest leaves first."""
    cache = IntrospectionCache(IntrospectionTimes(), size=3)
    cache.refuse(b"a", "inactive", NOW)
    for name in (b"a", b"b", b"c", b"b"):
        cache.accept(name, ALICE, NOW)
    assert all(cache.fresh(name, NOW) is ALICE for name in (b"a", b"b", b"c"))
    for name in (b"d", b"e"):
        cache.accept(name, ALICE, NOW)
    assert [cache.fresh(name, NOW) for name in (b"a", b"b", b"c")] == [None, ALICE, None]


def test_answers_that_count_no_more_leave_as_others_come() -> None:
    """Of a crowd, what would not even count in an outage leaves with those who come later; what may count stays."""
    cache = IntrospectionCache(IntrospectionTimes())
    for number in range(100):
        cache.accept(b"good %d" % number, ALICE, NOW)
        cache.refuse(b"bad %d" % number, "inactive", NOW)
    for number in range(20):
        cache.accept(b"later good %d" % number, ALICE, NOW + 359)
        cache.refuse(b"later bad %d" % number, "inactive", NOW + 10)
    assert (len(cache._active), len(cache._inactive)) == (120, 20)
    for number in range(20):
        cache.accept(b"later good %d" % number, ALICE, NOW + 360)
    assert len(cache._active) == 20
    assert cache.fresh(b"later good 0", NOW + 360) is ALICE


@pytest.mark.parametrize(
    ("token", "opaque"),
    [
        (b"abc", True),
        (b"a.b", True),
        (b"a.b.c.d.e", True),
        (b"", True),
        (b"eyJhbGciOiJSUzI1NiJ9.e30.c2ln", False),
        (b"eyJhbGciOiJub25lIn0.e30.", False),
        (b"e30..", False),
        (b"a.b.c", True),
        (b"..", True),
        (b"v4.public.eyJzdWIiOiJhIn0", True),
        (b"ya29.c.b0Aaekm1K", True),
        (b"W10.e30.c2ln", True),
        (b"NQ.e30.c2ln", True),
        (b"\xff\xfe.e30.c2ln", True),
        (urlsafe_b64encode(b"[" * 5000) + b".e30.c2ln", True),
    ],
)
def test_which_tokens_are_opaque(token: bytes, opaque: bool) -> None:
    """A token of three parts, the first a JSON object, is verified here; any other has to be asked about."""
    assert is_opaque(token) is opaque


@pytest.mark.parametrize("length", range(20))
def test_a_header_of_any_length_is_that_of_no_opaque_token(length: int) -> None:
    """However long a header is, and so however it were padded, its token is verified here."""
    header = urlsafe_b64encode(b'{"alg":"RS256","kid":"' + b"k" * length + b'"}').rstrip(b"=")
    assert not is_opaque(header + b".e30.c2ln")
