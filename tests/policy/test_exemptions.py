"""Whom limits do not apply to."""

from __future__ import annotations

import re

import pytest

from asgi_guard.policy.exemptions import Exemptions
from asgi_guard.policy.identity import User

ANN = User("ann")
KEY = User("ann", kind="api-key")


@pytest.mark.parametrize(
    ("values", "address", "user", "exempt"),
    [
        ([], "10.0.0.1", ANN, False),
        (["10.0.0.0/8"], "10.1.2.3", None, True),
        (["10.0.0.0/8"], "10.1.2.3", ANN, True),
        (["10.0.0.0/8"], "11.0.0.1", None, False),
        (["10.0.0.0/8"], None, None, False),
        (["10.0.0.0/8"], "unix", None, False),
        (["10.0.0.0/8"], "", None, False),
        (["10.0.0.1"], "10.0.0.1", None, True),
        (["10.0.0.1"], "10.0.0.2", None, False),
        (["10.0.0.1"], "::ffff:10.0.0.1", None, True),
        (["10.0.0.0/8"], "10.9.9.9", None, True),
        (["2001:db8::/32"], "2001:db8::1", None, True),
        (["2001:db8::/32"], "2001:db9::1", None, False),
        (["::1"], "::1", None, True),
        (["10.0.0.1", "192.0.2.0/24"], "192.0.2.9", None, True),
        (["user:ann"], "10.0.0.1", ANN, True),
        (["user:ann"], None, ANN, True),
        (["user:ann"], None, KEY, False),
        (["user:ann"], None, User("Ann"), False),
        (["user:ann"], None, None, False),
        (["api-key:ann"], None, KEY, True),
        (["api-key:ann"], None, ANN, False),
        (["api-key:a#ann"], None, User("a#ann", kind="api-key"), True),
        (["api-key:a#ann"], None, User("ann", kind="api-key", issuer="a"), False),
        (["user:auth0|a:b"], None, User("auth0|a:b"), True),
        (["user:bob", "10.0.0.1"], "10.0.0.1", ANN, True),
        (["user:10.0.0.1"], "10.0.0.1", None, False),
    ],
)
def test_cover(values: list[str], address: str | None, user: User | None, exempt: bool) -> None:
    """An address is exempt if one of the networks holds it, and an identity if its sort and name are said."""
    assert Exemptions.parse(values).cover(address, user) is exempt


@pytest.mark.parametrize(
    ("values", "some"), [([], False), (["10.0.0.1"], True), (["user:a"], True), (["api-key:a"], True)]
)
def test_whether_there_are_any(values: list[str], some: bool) -> None:
    """Exemptions are true where anyone is exempt at all."""
    assert bool(Exemptions.parse(values)) is some


@pytest.mark.parametrize("value", ["", "ann", "user:", "api-key:", "key:a", "USER:a", "10.0.0.0/33", "::g", "10.0.0"])
def test_malformed(value: str) -> None:
    """What is neither an address, a network nor an identity is an error that quotes it and says what may be."""
    expected = (
        f"{value!r} is not an address or a network such as 10.0.0.0/8; "
        "who is known is written user:SUBJECT or api-key:NAME"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        Exemptions.parse(["10.0.0.1", value])


def test_a_subject_is_that_of_the_issuer_that_is_named() -> None:
    """Where an issuer is named, its subject is exempt, and the same subject of another issuer is not."""
    exempt = Exemptions.parse(["user:https://id.example#alice", "user:bob"])
    assert exempt.cover(None, User("alice", issuer="https://id.example"))
    assert not exempt.cover(None, User("alice", issuer="https://other.example"))
    assert not exempt.cover(None, User("alice"))
    assert exempt.cover(None, User("bob", issuer="https://other.example"))
