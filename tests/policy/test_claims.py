"""What a token has to say, and every way of saying it wrong."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.claims import (
    MAX_LEEWAY,
    ClaimsPolicy,
    check_required,
    claim,
    confirmation,
    parse_required,
    scopes_of,
    wrong_bounds,
)
from tests.policy.forging import CLAIMS, NOW, POLICY

ABSENT = object()


def claims(**changes: object) -> dict[str, Any]:
    """Acceptable claims, changed; `ABSENT` leaves one out."""
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ABSENT}


def refusal(said: dict[str, Any], policy: ClaimsPolicy = POLICY, now: float = NOW) -> TokenError:
    """The error that claims are refused with."""
    with pytest.raises(TokenError) as caught:
        policy.check(said, now)
    return caught.value


def test_acceptable_claims_hold_until_their_end() -> None:
    """The answer is when the token stops being acceptable, leeway included."""
    assert POLICY.check(claims(), NOW) == NOW + 300 + 30


@pytest.mark.parametrize(
    "issuer",
    [
        ABSENT, None, "", "https://issuer.test/", "https://ISSUER.test", "https://issuer.test ", "http://issuer.test",
        "https://issuer.test.evil.test", "https://issuer.tes", ["https://issuer.test"], {"https://issuer.test": 1},
        5, True,
    ],
)  # fmt: skip
def test_the_issuer_is_exactly_the_configured_one(issuer: object) -> None:
    """An `iss` that differs in anything, a slash or a type, is refused."""
    assert refusal(claims(iss=issuer)).reason == "issuer"


@pytest.mark.parametrize("audience", ["api", "b", ["api"], ["other", "api"], ["api", "b"], ["api", "api"]])
def test_an_audience_names_this_api(audience: object) -> None:
    """An `aud` that is, or holds, one of the configured names is accepted."""
    policy = ClaimsPolicy(POLICY.issuer, frozenset({"api", "b"}))
    assert policy.check(claims(aud=audience), NOW)


@pytest.mark.parametrize(
    "audience",
    [
        ABSENT, None, "", "other", "API", "api ", "ap", "apis", "api,other", [], ["other"], [["api"]], ["api", 5],
        ["api", None], [None], {"api": 1}, {}, 5, True, 0.5,
    ],
)  # fmt: skip
def test_any_other_audience_is_refused(audience: object) -> None:
    """An `aud` that is missing, names others only, or has another type is refused."""
    assert refusal(claims(aud=audience)).reason == "audience"


@pytest.mark.parametrize("name", ["sub", "jti", "sid", "client_id"])
@pytest.mark.parametrize("value", [None, "", 5, 0, True, False, 0.5, [], ["alice"], {}, {"alice": 1}])
def test_names_are_strings(name: str, value: object) -> None:
    """A subject, token id, session id or client id that is no string, or an empty one, is refused."""
    assert refusal(claims(**{name: value})).reason == "claim"


def test_a_token_names_somebody() -> None:
    """A token without `sub` is refused; one without `jti` and `client_id` is not, unless it has to be revocable."""
    assert refusal(claims(sub=ABSENT)).reason == "claim"
    assert POLICY.check(claims(jti=ABSENT), NOW)
    revocable = replace(POLICY, require_jti=True)
    error = refusal(claims(jti=ABSENT), revocable)
    assert (error.reason, "jti is missing" in error.detail) == ("claim", True)
    assert revocable.check(claims(), NOW)
    assert POLICY.check(claims(client_id="app"), NOW)


HASH = "A" * 43


@pytest.mark.parametrize("proof", [{"jkt": "x"}, {"jkt": HASH}, {"x5t#S256": HASH}, {"jwk": {}}, {}, None, "x"])
def test_a_token_bound_to_a_key_is_no_bearer_token(proof: object) -> None:
    """A token that its issuer bound to a key (`cnf`) is refused, since no proof of that key is asked for."""
    assert refusal(claims(cnf=proof)).reason == "claim"


@pytest.mark.parametrize(
    "proof", [{"jkt": HASH, "x5t#S256": HASH}, {"x5t#S256": HASH}, {"jkt": HASH, "jwk": {}}, {}, None, "jkt", ["jkt"]]
)
def test_a_token_is_bound_to_nothing_but_what_is_asked_for(proof: object) -> None:
    """Where one proof is asked for, a token that is bound to something else, too, is refused: nobody looks at that."""
    policy = replace(POLICY, bindings=frozenset({"jkt"}))
    assert refusal(claims(cnf=proof), policy).reason == "claim"
    assert policy.check(claims(cnf={"jkt": HASH}), NOW)


def test_what_a_token_is_bound_to() -> None:
    """A token says by which hashes it is bound, or that it is bound by none."""
    assert confirmation(claims(cnf={"jkt": HASH}), {"jkt"}) == {"jkt": HASH}
    assert confirmation(claims(), {"jkt"}) == {}


@pytest.mark.parametrize("odd", ["x", "", "A" * 42, "A" * 44, "A" * 42 + "+", None, 5, ["A" * 43]])
def test_a_token_bound_twice_is_bound_by_two_hashes(odd: object) -> None:
    """A token that is bound to a key and a certificate is refused unless both are named by a hash."""
    policy = replace(POLICY, bindings=frozenset({"jkt", "x5t#S256"}))
    for members in ({"jkt": odd, "x5t#S256": "A" * 43}, {"jkt": "A" * 43, "x5t#S256": odd}):
        assert refusal(claims(cnf=members), policy).reason == "claim"
    assert policy.check(claims(cnf={"jkt": "A" * 43, "x5t#S256": "A" * 43}), NOW)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        None, True, False, "", "0", str(NOW + 300), "1e9", "\u0661", "soon", [], [NOW + 300], {}, {"s": NOW},
        float("inf"), float("-inf"), float("nan"), 10**400, -(10**400), 10**16, 1e300, -1e300,
    ],
)  # fmt: skip
def test_times_are_finite_numbers(name: str, value: object) -> None:
    """A time that is no number, a boolean, not finite or beyond all calendars is refused, never compared."""
    assert refusal(claims(**{name: value})).reason == "claim"


def test_a_token_has_to_end() -> None:
    """A token without `exp` is refused."""
    assert refusal(claims(exp=ABSENT)).reason == "claim"


def test_a_token_whose_issuer_is_asked_need_not_end() -> None:
    """Without `exp` such a token holds for ever, unless its life or its age is bounded, or its profile wants an end."""
    endless, said = replace(POLICY, endless=True), claims(exp=ABSENT, iat=NOW)
    assert endless.check(said, NOW) == inf
    assert replace(endless, max_age=60).check(said, NOW) == NOW + 60 + POLICY.leeway
    for policy in (replace(endless, max_lifetime=900), replace(endless, max_lifetime=900, max_age=60)):
        error = refusal(said, policy)
        assert (error.reason, "exp is missing" in error.detail) == ("claim", True)
    error = refusal({**said, "client_id": "shop", "jti": "1"}, replace(endless, profile="at+jwt"))
    assert (error.reason, "exp is missing" in error.detail) == ("claim", True)
    assert endless.check(claims(), NOW) == POLICY.check(claims(), NOW)
    assert refusal(claims(exp=NOW - 30), endless).reason == "expired"


@pytest.mark.parametrize(
    ("leeway", "age", "lifetime", "wrong"),
    [
        (0, None, None, []), (MAX_LEEWAY, 0.5, 1, []), (-0.5, None, None, ["leeway"]), (nan, None, None, ["leeway"]),
        (MAX_LEEWAY + 0.5, 0, -1, ["leeway", "max_token_age", "max_token_lifetime"]),
        (30, nan, None, ["max_token_age"]), (30, None, nan, ["max_token_lifetime"]),
    ],
)  # fmt: skip
def test_bounds_in_time(leeway: float, age: float | None, lifetime: float | None, wrong: list[str]) -> None:
    """The leeway lies between none and its most, a bound is more than nothing, and what is no number is neither."""
    assert [problem.name for problem in wrong_bounds(leeway, age, lifetime)] == wrong


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({"exp": NOW - 29.5}, None), ({"exp": NOW - 30}, "expired"), ({"exp": NOW - 30.5}, "expired"),
        ({"exp": 0}, "expired"), ({"exp": -1}, "expired"), ({"exp": NOW + 0.25}, None), ({"exp": 10**15}, None),
        ({"nbf": NOW + 30}, None), ({"nbf": NOW + 30.5}, "not_yet_valid"), ({"nbf": 0}, None), ({"nbf": -5.5}, None),
        ({"iat": NOW + 30}, None), ({"iat": NOW + 30.5}, "not_yet_valid"), ({"iat": 0}, None),
        ({"nbf": 10**15}, "not_yet_valid"), ({"iat": 10**15}, "not_yet_valid"),
    ],
)  # fmt: skip
def test_the_leeway_applies_to_all_three_times(changes: dict[str, Any], accepted: str | None) -> None:
    """Clocks may differ by the leeway and by no more, at the end, the start and the issue of a token."""
    if accepted is None:
        assert POLICY.check(claims(**changes), NOW) > NOW
    else:
        assert refusal(claims(**changes)).reason == accepted


@pytest.mark.parametrize(
    ("issued", "ends", "expected"),
    [
        (NOW, NOW + 300, NOW + 60 + 30), (NOW, NOW + 20, NOW + 50), (NOW - 89, NOW + 300, NOW + 1),
        (NOW - 90, NOW + 300, "too_old"), (NOW - 10_000, NOW + 300, "too_old"), (ABSENT, NOW + 300, "claim"),
        (NOW - 90, NOW - 30, "expired"), (NOW + 31, NOW + 300, "not_yet_valid"),
    ],
)  # fmt: skip
def test_the_age_of_tokens_may_be_bounded(issued: object, ends: float, expected: float | str) -> None:
    """Where the age is bounded, a token ends that long after its issue, and has to say when that was."""
    policy = ClaimsPolicy(POLICY.issuer, POLICY.audience, leeway=30, max_age=60)
    said = claims(iat=issued, exp=ends)
    if isinstance(expected, str):
        assert refusal(said, policy).reason == expected
    else:
        assert policy.check(said, NOW) == expected


def test_without_leeway_a_token_ends_on_time() -> None:
    """With no leeway, a token is refused from the very instant of its `exp`."""
    policy = ClaimsPolicy(POLICY.issuer, POLICY.audience, leeway=0)
    assert policy.check(claims(exp=NOW + 1), NOW + 0.999) == NOW + 1
    assert refusal(claims(exp=NOW + 1), policy, NOW + 1).reason == "expired"


@pytest.mark.parametrize("wild", ["\x1b[31m\r\n" * 200, ["\x07"] * 500, {"\u202e": "\n"}])
def test_details_are_fit_for_a_terminal(wild: object) -> None:
    """What the operator is shown of claims is short and printable ASCII."""
    for name in ("iss", "aud", "exp"):
        detail = refusal(claims(**{name: wild})).detail
        assert detail.isascii()
        assert detail.isprintable()
        assert len(detail) < 300


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        ({}, ()), ({"scope": ""}, ()), ({"scope": "a"}, ("a",)), ({"scope": "a b:c"}, ("a", "b:c")),
        ({"scope": "  a   b "}, ("a", "b")), ({"scp": "a b"}, ("a", "b")), ({"scp": ["a", "b"]}, ("a", "b")),
        ({"scp": []}, ()), ({"scope": "a", "scp": "admin"}, ("a",)), ({"scope": "", "scp": "admin"}, ()),
        ({"scope": "a\u00a0admin"}, ("a\u00a0admin",)), ({"scope": "a\nadmin"}, ("a\nadmin",)),
        ({"scope": "a\tadmin"}, ("a\tadmin",)), ({"scp": ["a b"]}, ("a b",)),
    ],
)  # fmt: skip
def test_scopes_are_read_as_they_were_granted(said: dict[str, Any], granted: tuple[str, ...]) -> None:
    """Scopes are parted by spaces only, and `scp` counts only where there is no `scope`."""
    assert scopes_of(said) == granted


@pytest.mark.parametrize("name", ["scope", "scp"])
@pytest.mark.parametrize("value", [None, 5, True, {}, {"admin": 1}, ["a", 5], [["admin"]], [None]])
def test_scopes_of_other_types_are_refused(name: str, value: object) -> None:
    """Scopes that are neither a string nor a list of strings are refused."""
    with pytest.raises(TokenError) as caught:
        scopes_of({name: value})
    assert caught.value.reason == "claim"
    assert ("but a list" in caught.value.detail) is (name == "scope" and isinstance(value, list))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def test_a_list_of_scopes_stands_in_scp_only() -> None:
    """`scope` is a string by RFC 8693; a list there is refused, so that no reader takes it differently."""
    with pytest.raises(TokenError, match="scope is not a string of scopes, but a list: have the issuer write one"):
        scopes_of({"scope": ["a"]})


NAMES = ("iss", "aud", "sub", "jti", "client_id", "exp", "nbf", "iat", "cnf", "scope", "scp")


@given(changes=st.dictionaries(st.sampled_from(NAMES), anything), max_age=st.none() | st.floats(0, 1e6))
@example(changes={"exp": 10**400}, max_age=None)
@example(changes={"sub": None}, max_age=None)
@example(changes={"iat": -(10**15), "exp": 10**15}, max_age=60.0)
def test_any_claims_are_refused_or_end_later(changes: dict[str, Any], max_age: float | None) -> None:
    """Claims of any shape raise token errors only; accepted ones name a subject and have not ended."""
    policy = ClaimsPolicy(POLICY.issuer, POLICY.audience, max_age=max_age)
    said = claims(**changes)
    try:
        ends = policy.check(said, NOW)
        scopes = scopes_of(said)
    except TokenError:
        return
    assert ends > NOW
    assert isinstance(said["sub"], str)
    assert all(isinstance(scope, str) for scope in scopes)


AT_JWT = replace(POLICY, profile="at+jwt")
AT_CLAIMS = {"client_id": "shop", "jti": "1", "iat": NOW}


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_an_access_token_is_marked_as_one(kind: str) -> None:
    """Under the profile a token of the media type is taken, in any case and with or without its prefix."""
    AT_JWT.check_type({"typ": kind})
    assert AT_JWT.check(claims(**AT_CLAIMS), NOW)


@pytest.mark.parametrize(
    "header", [{}, {"typ": "JWT"}, {"typ": "at+jwt "}, {"typ": None}, {"typ": ["at+jwt"]}, {"typ": 1}]
)
def test_other_tokens_of_the_issuer_are_no_access_tokens(header: dict[str, Any]) -> None:
    """Under the profile a token of another type is refused; without it, types are not looked at."""
    with pytest.raises(TokenError) as caught:
        AT_JWT.check_type(header)
    assert caught.value.reason == "type"
    POLICY.check_type(header)


@pytest.mark.parametrize("missing", ["exp", "iat", "jti", "client_id"])
def test_an_access_token_has_all_that_its_profile_requires(missing: str) -> None:
    """Under the profile every claim of RFC 9068 has to be there."""
    error = refusal(claims(**{**AT_CLAIMS, missing: ABSENT}), AT_JWT)
    assert (error.reason, missing in error.detail) == ("claim", True)


@pytest.mark.parametrize(("lived", "reason"), [(900, None), (900.5, "too_long"), (86_400, "too_long"), (-5, None)])
def test_a_life_that_is_too_long_is_refused_from_the_first(lived: float, reason: str | None) -> None:
    """A token that was issued for longer than is allowed is refused, however new it is."""
    policy = replace(POLICY, max_lifetime=900)
    said = claims(iat=NOW + 60 - lived, exp=NOW + 60)
    if reason is None:
        assert policy.check(said, NOW - lived + 60) == NOW + 60 + POLICY.leeway
    else:
        assert refusal(said, policy, NOW - 20).reason == reason


def test_a_bounded_life_needs_a_beginning() -> None:
    """Where a token's life or age is bounded, it has to say when it was issued."""
    for policy in (replace(POLICY, max_lifetime=900), replace(POLICY, max_age=900)):
        assert "iat is missing" in refusal(claims(iat=ABSENT), policy).detail


@pytest.mark.parametrize(
    ("required", "said", "accepted"),
    [
        ("tenant", {"tenant": "acme"}, True),
        ("tenant", {"tenant": False}, True),
        ("tenant", {}, False),
        ("tenant", {"tenant": None}, False),
        ("tenant=acme", {"tenant": "acme"}, True),
        ("tenant=acme", {"tenant": ["other", "acme"]}, True),
        ("tenant=acme", {"tenant": "acme2"}, False),
        ("tenant=acme", {"tenant": ["other"]}, False),
        ("tenant=1", {"tenant": 1}, True),
        ("tenant=1", {"tenant": True}, False),
        ("tenant=1", {"tenant": 10}, False),
        ("tenant=0.5", {"tenant": 0.5}, True),
        ("tenant=1", {"tenant": [2, 1]}, True),
        ("email_verified=true", {"email_verified": True}, True),
        ("email_verified=true", {"email_verified": "true"}, True),
        ("email_verified=true", {"email_verified": False}, False),
        ("email_verified=True", {"email_verified": True}, False),
        ("email_verified=false", {"email_verified": False}, True),
        ("tenant=acme", {"tenant": {"acme": 1}}, False),
        ("tenant=None", {"tenant": [None]}, False),
        ("tenant={}", {"tenant": {}}, False),
        (" tenant = acme ", {"tenant": "acme"}, True),
        ("org.id=7", {"org": {"id": "7"}}, True),
        ("org.id=7", {"org.id": "7"}, True),
        ("org.id=7", {"org.id": "8", "org": {"id": "7"}}, False),
        ("org.id", {"org": "id"}, False),
        ("org.id", {"org": {}}, False),
    ],
)
def test_required_claims(required: str, said: dict[str, Any], accepted: bool) -> None:
    """A required claim has to be there, and to be or to hold the value that is asked."""
    policy = replace(POLICY, required=parse_required([required]))
    if accepted:
        assert policy.check(claims(**said), NOW)
    else:
        assert refusal(claims(**said), policy).reason == "claim"


@pytest.mark.parametrize("text", ["", "=", " =x"])
def test_a_required_claim_has_a_name(text: str) -> None:
    """A required claim without a name is an error."""
    with pytest.raises(ValueError, match="names no claim"):
        parse_required([text])


def test_a_required_claim_is_no_comparison() -> None:
    """Two signs of equality are told of: no value would be found."""
    with pytest.raises(ValueError, match="has two signs of equality"):
        parse_required(["tenant==acme"])


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        ({"roles": ["a", "b"]}, ("a", "b")),
        ({"roles": "a b"}, ("a", "b")),
        ({"roles": ["a"], "realm": {"roles": ["z"]}}, ("a",)),
        ({"realm": {"roles": ["z"]}}, ("z",)),
        ({"realm.roles": ["y"], "realm": {"roles": ["z"]}}, ("y",)),
        ({"scope": "s"}, ()),
        ({"realm": {"roles": None}}, ()),
        ({}, ()),
    ],
)
def test_scopes_stand_where_they_are_said_to(said: dict[str, Any], granted: tuple[str, ...]) -> None:
    """Scopes are read from the first of the configured claims that is there, and from no other."""
    assert scopes_of(said, ("roles", "realm.roles")) == granted


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"a.b.c.d": 1, "a": {"b.c.d": 2}}, 1),
        ({"a": {"b.c": {"d": 1}}}, 1),
        ({"a": {"b": {"c": {"d": 1}}}}, 1),
        ({"a.b": {"c.d": 1}}, 1),
        ({"a": {"b.c.d": 1, "b.c": {"d": 2}, "b": {"c": {"d": 3}}}}, 1),
        ({"a": {"b.c": {"d": 2}, "b": {"c": {"d": 3}}}}, 2),
        ({"a.b": {"x": 1}, "a": {"b": {"c.d": 2}}}, 2),
        ({"a.b.c": 5, "a.b": [], "a": {"b": {"c": {"d": False}}}}, False),
        ({"a": {"b": {"c": {"e": 1}}}}, None),
        ({"a": {"b.c": "d"}}, None),
        ({"": {"a": 1}}, None),
        ({}, None),
    ],
)
def test_names_on_a_path_may_have_dots(said: dict[str, Any], found: object) -> None:
    """At each level the longest name that is there counts, unless nothing of the rest is below it."""
    assert claim(said, "a.b.c.d") == found


def test_roles_of_a_client_whose_id_has_dots() -> None:
    """Keycloak has the roles of a client below its id, which may be a host's name."""
    said = {"resource_access": {"account": {"roles": ["x"]}, "api.example.com": {"roles": ["admin"]}}}
    assert scopes_of(said, ("resource_access.api.example.com.roles",)) == ("admin",)
    check_required(said, (("resource_access.api.example.com.roles", "admin"),))
    with pytest.raises(TokenError, match="is missing"):
        check_required(said, (("resource_access.other.example.com.roles", "admin"),))
