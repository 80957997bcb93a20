"""May they: every decision and its wording, and the form of the guard's own answers."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.policy.access import AccessPolicy, AccessRule, Failure, Revocation, unavailable
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.identity import User
from asgi_guard.policy.routes import AuthMode

ALICE = User("alice", ("read", "write"))
MODES: tuple[AuthMode, ...] = ("required", "optional", "none")
POLICY = AccessPolicy()


def header(answer: Answer, name: bytes) -> bytes | None:
    """The one line of a header, or None."""
    lines = [value for found, value in answer.headers if found == name]
    assert len(lines) <= 1
    return lines[0] if lines else None


def refusal(
    rule: AccessRule, user: User | None, failure: Failure | None = None, policy: AccessPolicy = POLICY, **facts: Any
) -> tuple[int, Reason | None, bytes | None]:
    """The status, reason and challenge of a refusal; whatever it is, it is a problem that is not cached."""
    answer = policy.decide(rule, user, failure, **facts)
    assert answer is not None
    assert header(answer, b"content-type") == b"application/problem+json"
    assert header(answer, b"cache-control") == b"no-store"
    body = json.loads(answer.body)
    assert (body["status"], body["reason"]) == (answer.status, answer.reason)
    return answer.status, answer.reason, header(answer, b"www-authenticate")


REQUIRED, OPTIONAL = AccessRule(), AccessRule("optional")
MALFORMED = (400, Reason.CREDENTIALS_MALFORMED, b'Bearer error="invalid_request"')
KEYS = (503, Reason.KEYS_UNAVAILABLE, None)
INVALID = (401, Reason.CREDENTIALS_INVALID, b'Bearer error="invalid_token"')
MISSING = (401, Reason.CREDENTIALS_MISSING, b"Bearer")
REVOKED = (401, Reason.TOKEN_REVOKED, b'Bearer error="invalid_token"')
STORE = (503, Reason.STORE_UNAVAILABLE, None)
CROSS_SITE = (403, Reason.CROSS_SITE, None)


@pytest.mark.parametrize("rule", [REQUIRED, OPTIONAL, AccessRule("required", ("read",))])
@pytest.mark.parametrize(
    ("failure", "expected"),
    [(Failure.MALFORMED, MALFORMED), (Failure.KEYS_UNAVAILABLE, KEYS), (Failure.INVALID, INVALID)],
)
def test_credentials_that_failed_are_refused_where_they_count(
    rule: AccessRule, failure: Failure, expected: tuple[int, Reason, bytes | None]
) -> None:
    """Bad credentials never make a stranger of their sender, not even where an identity is optional."""
    assert refusal(rule, None, failure) == expected


@pytest.mark.parametrize(
    ("failure", "nonce", "challenge", "told"),
    [
        (Failure.PROOF, None, b'DPoP error="invalid_dpop_proof", algs="ES256 EdDSA"', None),
        (Failure.NONCE, "n1", b'DPoP error="use_dpop_nonce", algs="ES256 EdDSA"', b"n1"),
    ],
)
def test_a_proof_that_failed_is_challenged_by_its_own_scheme(
    failure: Failure, nonce: str | None, challenge: bytes, told: bytes | None
) -> None:
    """Only `DPoP` is challenged, with its error (RFC 9449 7.1), and told the nonce where that was missing (8)."""
    answer = AccessPolicy(proof_algorithms=("ES256", "EdDSA")).decide(REQUIRED, None, failure, nonce=nonce)
    assert answer is not None
    assert (answer.status, answer.reason) == (401, Reason.CREDENTIALS_INVALID)
    assert (header(answer, b"www-authenticate"), header(answer, b"dpop-nonce")) == (challenge, told)


@pytest.mark.parametrize(
    ("rule", "unscoped"),
    [
        (REQUIRED, True),
        (AccessRule("required", ("read",)), False),
        (AccessRule("required", (), ("read",)), False),
        (AccessRule("required", ("read",), ("write",)), False),
    ],
)
def test_a_rule_that_asks_for_any_scope_is_not_unscoped(rule: AccessRule, unscoped: bool) -> None:
    """Scopes of which all, or one, have to be there: a rule with either looks at the user's."""
    assert rule.unscoped is unscoped


def test_a_stranger_is_challenged_without_an_error_code() -> None:
    """Who sent no credentials is told only that they are needed."""
    assert refusal(REQUIRED, None) == MISSING


@pytest.mark.parametrize(
    ("policy", "user", "facts", "expected"),
    [
        (POLICY, ALICE, {"revocation": Revocation.REVOKED}, REVOKED),
        (POLICY, ALICE, {"revocation": Revocation.REVOKED, "cross_site": True}, REVOKED),
        (POLICY, ALICE, {"revocation": Revocation.UNKNOWN}, STORE),
        (POLICY, ALICE, {"revocation": Revocation.UNKNOWN, "cross_site": True}, STORE),
        (AccessPolicy(deny_unknown_revocation=False), ALICE, {"revocation": Revocation.REVOKED}, REVOKED),
        (POLICY, ALICE, {"cross_site": True}, CROSS_SITE),
        (POLICY, User("bob"), {"cross_site": True}, CROSS_SITE),
        (
            POLICY, User("bob", ("read",)), {},
            (403, Reason.SCOPE_MISSING, b'Bearer error="insufficient_scope", scope="read write"'),
        ),
        (
            POLICY, User("bob", ("Read", "write ", "readwrite")), {},
            (403, Reason.SCOPE_MISSING, b'Bearer error="insufficient_scope", scope="read write"'),
        ),
    ],
)  # fmt: skip
def test_users_are_refused_in_order(
    policy: AccessPolicy, user: User, facts: dict[str, Any], expected: tuple[int, Reason, bytes | None]
) -> None:
    """Of several reasons to refuse a user, the first in the documented order is the one that is said."""
    assert refusal(AccessRule("required", ("read", "write")), user, None, policy, **facts) == expected


@pytest.mark.parametrize(
    ("policy", "rule", "user", "facts"),
    [
        (POLICY, REQUIRED, ALICE, {}),
        (POLICY, AccessRule("required", ("read",)), ALICE, {}),
        (POLICY, AccessRule("required", ("write", "read")), ALICE, {}),
        (POLICY, OPTIONAL, None, {}),
        (POLICY, OPTIONAL, ALICE, {}),
        (POLICY, OPTIONAL, None, {"revocation": Revocation.UNKNOWN}),
        (AccessPolicy(deny_unknown_revocation=False), REQUIRED, ALICE, {"revocation": Revocation.UNKNOWN}),
    ],
)
def test_who_may_is_let_through(
    policy: AccessPolicy, rule: AccessRule, user: User | None, facts: dict[str, Any]
) -> None:
    """A user with every scope passes, and so does a stranger where an identity is optional."""
    assert policy.decide(rule, user, None, **facts) is None


@pytest.mark.parametrize("failure", [None, *Failure])
@pytest.mark.parametrize("user", [None, ALICE])
def test_a_public_route_asks_nothing(user: User | None, failure: Failure | None) -> None:
    """Where credentials are not looked at, nothing about them matters."""
    facts: dict[str, Any] = {"revocation": Revocation.REVOKED, "cross_site": True}
    assert POLICY.decide(AccessRule("none"), user, failure, **facts) is None


@pytest.mark.parametrize("failure", [Failure.MALFORMED, Failure.INVALID, None])
def test_the_challenge_names_the_scheme(failure: Failure | None) -> None:
    """Where only API keys are taken, the challenge says so."""
    _, _, challenge = refusal(REQUIRED, None, failure, AccessPolicy("ApiKey"))
    assert challenge is not None
    assert challenge.split(b" ")[0] == b"ApiKey"


def test_a_challenge_says_where_the_resource_describes_itself() -> None:
    """Where there are metadata, every challenge names their address behind the error."""
    policy = AccessPolicy(resource_metadata="https://api.test/m", proof_algorithms=("ES256",))
    answer = policy.decide(REQUIRED, None, Failure.INVALID)
    assert answer is not None
    said = 'error="invalid_token", resource_metadata="https://api.test/m"'
    assert [value.decode() for name, value in answer.headers if name == b"www-authenticate"] == [
        f"Bearer {said}",
        f'DPoP {said}, algs="ES256"',
    ]
    assert refusal(REQUIRED, None, policy=AccessPolicy(resource_metadata="https://api.test/m"))[2] == (
        b'Bearer resource_metadata="https://api.test/m"'
    )


def test_invalid_and_revoked_tokens_are_refused_in_the_same_words() -> None:
    """What the client reads does not tell why a token is not valid, but for the reason's word."""
    invalid = POLICY.decide(REQUIRED, None, Failure.INVALID)
    revoked = POLICY.decide(REQUIRED, ALICE, None, revocation=Revocation.REVOKED)
    assert invalid is not None
    assert revoked is not None
    assert invalid.headers == revoked.headers
    assert {**json.loads(invalid.body), "reason": ""} == {**json.loads(revoked.body), "reason": ""}


@pytest.mark.parametrize(
    ("mode", "user", "failure", "revocation", "cross_site"),
    list(product(MODES, [None, ALICE], [None, *Failure], Revocation, [False, True])),
)
def test_every_refusal_has_the_headers_of_its_status(
    mode: AuthMode, user: User | None, failure: Failure | None, revocation: Revocation, cross_site: bool
) -> None:
    """Every 401 carries a challenge, every 503 says when to come back, and no other status is both."""
    answer = POLICY.decide(AccessRule(mode), user, failure, revocation=revocation, cross_site=cross_site)
    if answer is None:
        assert mode == "none" or (failure is None and (user is not None or mode == "optional"))
        return
    assert mode != "none"
    assert answer.status in (400, 401, 403, 503)
    assert (header(answer, b"retry-after") is not None) == (answer.status == 503)
    assert answer.status != 401 or header(answer, b"www-authenticate") is not None
    assert answer.status != 503 or header(answer, b"www-authenticate") is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, b"1"), (0, b"1"), (0.2, b"1"), (1, b"1"), (1.0001, b"2"), (2, b"2"), (59.5, b"60"), (60, b"60")],
)
def test_when_to_come_back_is_in_whole_seconds(seconds: float, said: bytes) -> None:
    """Seconds are rounded up, and are one at least."""
    assert header(unavailable(Reason.KEYS_UNAVAILABLE, seconds, None), b"retry-after") == said
    answer = POLICY.decide(REQUIRED, None, Failure.KEYS_UNAVAILABLE, retry_after=seconds)
    assert answer is not None
    assert header(answer, b"retry-after") == said


@pytest.mark.parametrize(
    ("user", "failure", "facts"),
    [
        (None, None, {}), (None, Failure.INVALID, {}), (None, Failure.MALFORMED, {}),
        (None, Failure.KEYS_UNAVAILABLE, {}), (User("bob"), None, {}), (ALICE, None, {"cross_site": True}),
        (ALICE, None, {"revocation": Revocation.REVOKED}), (ALICE, None, {"revocation": Revocation.UNKNOWN}),
    ],
)  # fmt: skip
def test_every_refusal_carries_the_request_id(
    user: User | None, failure: Failure | None, facts: dict[str, Any]
) -> None:
    """The id that a client can quote stands in every refusal, and is left out where there is none."""
    rule = AccessRule("required", ("read",))
    with_id = POLICY.decide(rule, user, failure, request_id="r-1", **facts)
    without = POLICY.decide(rule, user, failure, **facts)
    assert with_id is not None
    assert without is not None
    assert json.loads(with_id.body) == {**json.loads(without.body), "request_id": "r-1"}
    assert "request_id" not in json.loads(without.body)


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    """A problem says its type, the status's own phrase, the status, a detail, the reason, and what else was given."""
    answer = problem(
        429, Reason.RATE_LIMITED, "Slow down.", request_id="r", headers=((b"x-a", b"1"),), type_="urn:quota", limit=5
    )
    assert json.loads(answer.body) == {
        "type": "urn:quota", "title": "Too Many Requests", "status": 429, "detail": "Slow down.",
        "reason": "rate_limited", "limit": 5, "request_id": "r",
    }  # fmt: skip
    assert answer.headers == (
        (b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"), (b"x-a", b"1"),
    )  # fmt: skip
    assert (answer.status, answer.reason) == (429, Reason.RATE_LIMITED)


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_are_plain_words(reason: Reason) -> None:
    """A reason is one lower-case word with underscores, so that it can be a label of a metric."""
    assert reason.value.replace("_", "").isalpha()
    assert reason.value.islower()


scopes = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4).map(tuple)


@given(needed=scopes, one_of=scopes, held=scopes)
def test_scopes_are_all_needed_and_one_of_some(
    needed: tuple[str, ...], one_of: tuple[str, ...], held: tuple[str, ...]
) -> None:
    """A user passes exactly when every needed scope is among those held, and one of those of which one is asked."""
    answer = POLICY.decide(AccessRule("required", needed, one_of), User("alice", held), None)
    assert (answer is None) == (set(needed) <= set(held) and (not one_of or not set(one_of).isdisjoint(held)))


def test_a_challenge_names_scopes_that_would_do() -> None:
    """Where one of several scopes is asked, the challenge names what would let the request through, once each."""
    for needed in ("a", "b"), ("a",):
        _, _, challenge = refusal(AccessRule("required", needed, ("b", "c")), User("alice", ("a",)))
        assert challenge == b'Bearer error="insufficient_scope", scope="a b"'
