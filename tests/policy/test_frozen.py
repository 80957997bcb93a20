"""JSON that cannot be changed, and is written, compared and copied as any other."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from asgi_guard.policy.frozen import FrozenDict, FrozenList, frozen
from asgi_guard.policy.identity import ANONYMOUS, Anonymous, APIKey, User, api_key_digest


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - it is our own


CLAIMS: dict[str, Any] = {"sub": "alice", "realm_access": {"roles": ["user", ["a"], {"b": []}]}, "aud": ["api", "b"]}
ALICE = User("alice", ("read",), frozen(CLAIMS), "https://issuer.test", expires=9e9, key="k", token_id="t")
CI = APIKey("ci", api_key_digest(b"secret"), ("deploy",), "pro").user()

of_dicts: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__("sub", "eve"),
    lambda it: it.__delitem__("sub"),
    lambda it: it.__ior__({"sub": "eve"}),
    lambda it: it.update(sub="eve"),
    lambda it: it.setdefault("admin", True),
    lambda it: it.pop("sub"),
    lambda it: it.popitem(),
    lambda it: it.clear(),
]
of_lists: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__(0, "admin"),
    lambda it: it.__setitem__(slice(0, 1), ["admin"]),
    lambda it: it.__delitem__(0),
    lambda it: it.__iadd__(["admin"]),
    lambda it: it.__imul__(2),
    lambda it: it.append("admin"),
    lambda it: it.extend(["admin"]),
    lambda it: it.insert(0, "admin"),
    lambda it: it.pop(),
    lambda it: it.remove("api"),
    lambda it: it.reverse(),
    lambda it: it.sort(),
    lambda it: it.clear(),
]


@pytest.mark.parametrize("change", of_dicts)
def test_no_dict_is_changed(change: Callable[[Any], object]) -> None:
    """Nothing that changes a dict changes one of these, at any depth, and every way to do it is looked at here."""
    claims = frozen({**CLAIMS, "inner": CLAIMS, "listed": [CLAIMS]})
    for each in (claims, claims["inner"], claims["listed"][0]):
        with pytest.raises(TypeError, match="read-only: a remembered token is shown to other requests too"):
            change(each)
    assert claims == {**CLAIMS, "inner": CLAIMS, "listed": [CLAIMS]}
    assert {name for name in set(vars(dict)) & set(vars(FrozenDict)) if name != "__doc__"} >= {
        *("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"),
    }


@pytest.mark.parametrize("change", of_lists)
def test_no_list_is_changed(change: Callable[[Any], object]) -> None:
    """Nothing that changes a list changes one of these, at any depth."""
    claims = frozen({"aud": ["api", "b"], "inner": {"aud": ["api", "b"]}, "listed": [["api", "b"]]})
    for each in (claims["aud"], claims["inner"]["aud"], claims["listed"][0]):
        with pytest.raises(TypeError, match="read-only"):
            change(each)
        assert each == ["api", "b"]


@pytest.mark.parametrize("members", [CLAIMS, {"aud": [], "realm_access": {}}])
def test_each_is_made_once(members: dict[str, Any]) -> None:
    """To be made anew changes nothing, also of one in which there is nothing."""
    claims: Any = frozen(members)
    for each in (claims, claims["realm_access"], claims["aud"]):
        each.__init__([("sub", "eve")])
    claims.__init__(sub="eve")
    assert claims == members


def test_each_is_made_as_a_plain_one() -> None:
    """Whatever makes another one by the type, as `dataclasses.asdict` does, gets one."""
    assert FrozenDict([("a", 1)], b=2) == FrozenDict({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert (FrozenList(iter("ab")), FrozenList(), FrozenDict()) == (["a", "b"], [], {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_it_is_written_and_read_as_any_other(members: dict[str, Any]) -> None:
    """Whatever it holds, it equals the plain one, and is written, pickled and copied as that."""
    claims = frozen(members)
    assert claims == members
    assert json.loads(json.dumps(claims)) == orjson.loads(orjson.dumps(claims)) == members
    assert TypeAdapter(dict[str, Any]).dump_python(claims, mode="json") == members
    for copied in (pickled(claims), copy.deepcopy(claims), copy.copy(claims)):
        assert copied == members
        assert type(copied) is FrozenDict
    for nested in claims.values():
        assert type(nested) in (FrozenDict, FrozenList) or not isinstance(nested, dict | list)


def test_a_copy_can_be_changed() -> None:
    """A plain copy is one's own, and leaves the other as it was."""
    claims = frozen(CLAIMS)
    own, listed = dict(claims), claims["aud"].copy()
    own["sub"] = "bob"
    listed.append("c")
    assert (claims, type(claims.copy()), type(claims | {})) == (CLAIMS, dict, dict)


@pytest.mark.parametrize("user", [ALICE, CI, ANONYMOUS, User("bob")])
def test_users_are_values(user: User | Anonymous) -> None:
    """A user can be hashed, copied, pickled and written, whoever he is, and what comes of it is the same user."""
    assert {user: 1}[copy.deepcopy(user)] == 1
    assert pickled(user) == user
    told = asdict(user)
    written = json.loads(json.dumps(told, allow_nan=False))
    assert written == json.loads(json.dumps(TypeAdapter(Mapping[str, Any]).dump_python(told, mode="json")))
    if isinstance(user, User):
        assert (told["subject"], told["claims"]) == (user.subject, user.claims)
        assert pickled(user).auth == user.auth
