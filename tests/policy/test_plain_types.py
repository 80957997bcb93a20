"""Values of another type than they are declared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.plain_types import require_fields, wrong_types

VALUES: dict[str, Any] = {"str": "a", "int": 1, "float": 1.5, "bool": True, "bytes": b"a", "None": None}
TAKEN = {(kind, kind) for kind in VALUES} | {("float", "int")}


@pytest.mark.parametrize("declared", VALUES)
@pytest.mark.parametrize("given", VALUES)
def test_each_type(declared: str, given: str) -> None:
    """A value of another type is told, but for whole numbers where any number is taken; a bool is no number."""
    faults = list(wrong_types({"it": declared}, {"it": VALUES[given]}))
    assert bool(faults) != ((declared, given) in TAKEN)
    assert [fault.name for fault in faults] == ["it"] * len(faults)


@given(st.sets(st.sampled_from(sorted(VALUES)), min_size=1), st.sampled_from(sorted(VALUES)))
def test_one_of_several(declared: set[str], kind: str) -> None:
    """Where several types are declared, a value of any of them is taken, and of no other."""
    faults = list(wrong_types({"it": " | ".join(declared)}, {"it": VALUES[kind]}))
    assert bool(faults) != any((each, kind) in TAKEN for each in declared)


@pytest.mark.parametrize("declared", ["Sequence[str] | str", "Callable[[], float]", "AuthMode | None", ""])
def test_not_looked_at(declared: str) -> None:
    """What is declared with other types says itself what it cannot be."""
    assert not list(wrong_types({"it": declared}, {"it": object()}))
    assert not list(wrong_types({}, {"it": object()}))


@dataclass
class Example:
    """Something with a secret and a number."""

    secret: str = field(default="", repr=False)
    seconds: float | None = None


def test_fields() -> None:
    """All fields that are wrong are told at once, with what to give, and without their values."""
    made: Any = Example
    require_fields(made("s3cr3t", 3))
    with pytest.raises(ConfigError) as raised:
        require_fields(made(b"s3cr3t", "30"))
    assert str(raised.value) == (
        "secret: it is of the type bytes: give a text\nseconds: it is of the type str: give a number or None"
    )
