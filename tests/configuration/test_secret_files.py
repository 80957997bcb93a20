"""Secrets that are read from files, as Docker and Kubernetes mount them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asgi_guard import ConfigError, CSRFSettings, GuardSettings
from asgi_guard.settings import variables
from tests.configuring import SAID, problems, setting

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = {variable.name.removeprefix("ASGI_GUARD_"): variable.file for variable in variables() if variable.file}


def test_which_they_are() -> None:
    """Every variable whose value is never shown has one more that names a file, and no other has."""
    assert {
        name: f"ASGI_GUARD_{name}_FILE"
        for name in (
            "STORE_URL", "AUTH_INTROSPECTION_CLIENT_SECRET", "AUTH_DPOP_NONCE_SECRET", "CSRF_SECRET",
            "CSRF_PREVIOUS_SECRET",
        )
    } == SECRETS  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_file_is_as_good_as_the_variable(
    secret: str, encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With everything set, a secret from a file is what it is from the variable.

    The newline in which such a file ends is not part of it, nor is the mark with which editors let UTF-8 begin.
    """
    for name, (text, _) in SAID.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", text)
    expected = GuardSettings()
    file = tmp_path / "secret"
    file.write_text(SAID[secret][0] + "\n", encoding)
    monkeypatch.delenv(f"ASGI_GUARD_{secret}")
    monkeypatch.setenv(f"ASGI_GUARD_{secret}_FILE", str(file))
    assert GuardSettings() == expected
    assert setting(GuardSettings(), secret) == SAID[secret][1]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read: No such file"), (b" \n", "is empty"), (b"\xff" * 40, "not text")]
)
def test_a_file_that_is_none(content: bytes | None, message: str, tmp_path: Path) -> None:
    """A file that cannot be used is told by its own variable."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    found = problems(CSRF_MODE="log", CSRF_SESSION_COOKIE="sid", CSRF_SECRET_FILE=str(file))
    assert f"{file} " in found["CSRF_SECRET_FILE"][0]
    assert message in found["CSRF_SECRET_FILE"][0]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """What is no file at all is told likewise, beside what else is wrong."""
    found = problems(STORE_URL_FILE=str(tmp_path), RATE_WORKERS="0")
    assert set(found) == {"STORE_URL_FILE", "RATE_WORKERS"}


@pytest.mark.parametrize(
    "secret", ["hunter2", "hun/ter2/", "/hunter2", "redis://:hunter2@cache:6379/0", "hunter2" * 50]
)
def test_a_secret_in_the_place_of_its_file_is_not_repeated(secret: str) -> None:
    """What is no path on this machine may be the secret itself, and what to write is told without it."""
    (message,) = problems(STORE_URL_FILE=secret)["STORE_URL_FILE"]
    assert "hun" not in message
    assert message.startswith("it names no file that can be read (")
    assert message.endswith("): it takes the path of a file, not the secret")


def test_one_place_for_a_secret(tmp_path: Path) -> None:
    """A secret that is said twice could be either."""
    file = tmp_path / "secret"
    file.write_text("f" * 32, "utf-8")
    told = {"CSRF_MODE": "log", "CSRF_SESSION_COOKIE": "sid", "CSRF_SECRET": "s" * 32, "CSRF_SECRET_FILE": str(file)}
    found = problems(**told)
    assert found == {"CSRF_SECRET_FILE": ["ASGI_GUARD_CSRF_SECRET is set too: keep the secret in one place"]}


def test_a_misspelt_file_is_told() -> None:
    """A variable that names no secret has no file."""
    (message,) = problems(CSRF_SECRETS_FILE="/x")["CSRF_SECRETS_FILE"]
    assert message == "there is no such variable; did you mean ASGI_GUARD_CSRF_SECRET_FILE?"
    assert "RATE_LIMIT_FILE" in problems(RATE_LIMIT_FILE="/x")


def test_a_section_that_is_given_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told in Python is taken whole, and no file of the environment is missed."""
    monkeypatch.setenv("ASGI_GUARD_CSRF_SECRET_FILE", os.devnull + "/none")
    assert GuardSettings(csrf=CSRFSettings(mode="log")).csrf.secret is None
    with pytest.raises(ConfigError):
        GuardSettings()
