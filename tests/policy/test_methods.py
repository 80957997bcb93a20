"""Methods by their names, and what a misspelt one may mean."""

from __future__ import annotations

import pytest

from asgi_guard.policy.methods import KNOWN_METHODS, misspelt, resembled


@pytest.mark.parametrize(
    ("method", "meant"),
    [
        ("DELTE", "DELETE"), ("DELETEE", "DELETE"), ("PTU", "PUT"), ("PUTT", "PUT"), ("PSOT", "POST"),
        ("POSTT", "POST"), ("GTE", "GET"), ("PACTH", "PATCH"), ("OPTION", "OPTIONS"), ("HAED", "HEAD"),
        ("QUREY", "QUERY"),
    ],
)  # fmt: skip
def test_a_slip_of_the_hand_is_known(method: str, meant: str) -> None:
    """A letter too few or too many, or two that changed places, are a slip that shows what was meant."""
    assert misspelt(method) == resembled(method) == meant


@pytest.mark.parametrize(
    ("method", "like"),
    [("READ", "HEAD"), ("SET", "GET"), ("PROFIND", "PROPFIND"), ("DELATE", "DELETE"), ("REMOVE", "MOVE")],
)
def test_another_word_only_looks_alike(method: str, like: str) -> None:
    """A word that may be a method of one's own is taken for no slip, and what it looks like can be asked about."""
    assert misspelt(method) is None
    assert resembled(method) == like


@pytest.mark.parametrize("method", [*sorted(KNOWN_METHODS), "PROPFIND", "PURGE", "TRACK", "LIST", "UNLOCK"])
def test_methods_that_there_are_mean_themselves(method: str) -> None:
    """What is registered, or known to servers and caches, is taken for no other, however alike."""
    assert misspelt(method) is None
    assert resembled(method) is None


@pytest.mark.parametrize("method", ["BREW", "INVALIDATE", "X", "", "*"])
def test_methods_that_resemble_none_are_ones_own(method: str) -> None:
    """What resembles no method is nobody's slip."""
    assert misspelt(method) is None
    assert resembled(method) is None
