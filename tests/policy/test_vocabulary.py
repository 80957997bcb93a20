"""The words of refusals and log lines: every one is told, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import asgi_guard
from asgi_guard import Guard
from asgi_guard.policy.answer import Reason
from asgi_guard.policy.proxies import Doubt
from asgi_guard.policy.vocabulary import DETAILS, DETAILS_OF_REQUESTS, DOUBTS, REASONS
from asgi_guard.settings import variables
from tests.asgi import Echo

SOURCES = {path: path.read_text("utf-8") for path in Path(asgi_guard.__file__).parent.rglob("*.py")}


def test_every_reason_is_told() -> None:
    """Each reason has its row, in the order of the enumeration, with a meaning and with something to do."""
    assert list(REASONS) == list(Reason)
    assert all(told.meaning.endswith(".") and told.advice.endswith((".", ")")) for told in REASONS.values())


def test_the_statuses_are_those_of_the_code() -> None:
    """The status that is told of a reason is the one that the code refuses with."""
    found = {
        (Reason[name], int(status))
        for text in SOURCES.values()
        for status, name in re.findall(r"problem\(\s*(\d{3}),\s*Reason\.([A-Z_]+)", text)
    }
    assert len(found) > 6
    assert {(reason, REASONS[reason].status) for reason, _ in found} == found


def test_the_layers_are_layers() -> None:
    """Who is said to refuse is a layer, or whose error it was."""
    names = {name for text in SOURCES.values() for name in re.findall(r'^    name = "(\w+)"', text, re.MULTILINE)}
    assert {layer.name for layer in Guard(Echo()).layers} <= names
    assert {layer for told in REASONS.values() for layer in told.layers} <= names | {"app", "guard"}


def test_every_detail_is_told() -> None:
    """Each word that a token, a proof or a key is refused by is told, and no other."""
    raised = {name for text in SOURCES.values() for name in re.findall(r'(?:TokenError|ProofError)\(\s*"(\w+)"', text)}
    assert raised | {"proof_missing", "proof_repeated"} == {*DETAILS, *DETAILS_OF_REQUESTS}


def test_every_doubt_is_told() -> None:
    """Each reason for not knowing the client is told."""
    assert set(DOUBTS) == set(get_args(Doubt))


def test_variables_that_are_named_exist() -> None:
    """Every variable that some advice names is one."""
    advice = " ".join(
        (
            *(f"{told.meaning} {told.advice}" for told in REASONS.values()),
            *(told.advice for told in {**DETAILS, **DETAILS_OF_REQUESTS}.values()),
            *DOUBTS.values(),
        )
    )
    named = set(re.findall(r"ASGI_GUARD_[A-Z0-9_]*[A-Z0-9]", advice))
    assert len(named) > 10
    assert named <= {variable.name for variable in variables()}
