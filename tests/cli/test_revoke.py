"""`asgi-guard revoke`, with a real store that other processes share."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import Guard
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, get
from tests.cli.running import invoke
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def parts() -> Iterator[tuple[LocalIssuer, Server]]:
    with LocalIssuer(algorithm="ES256").serve() as issuer, Server() as server:
        yield issuer, server


@pytest.fixture
def issuer(parts: tuple[LocalIssuer, Server], monkeypatch: pytest.MonkeyPatch) -> LocalIssuer:
    issuer, server = parts
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", issuer.url)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_AUTH_REVOCATION", "true")
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", server.url)
    monkeypatch.setenv("ASGI_GUARD_STORE_TIMEOUT", "5")
    return issuer


def statuses(*tokens: str) -> list[int]:
    """What a guarded app answers to each token."""

    async def ask() -> list[int]:
        guard = Guard(Echo())
        try:
            answers = [await get(guard, "/", [(b"authorization", f"Bearer {token}".encode())]) for token in tokens]
        finally:
            for layer in guard.layers:
                await layer.shutdown()
        return [answer.status for answer in answers]

    return asyncio.run(ask())


def test_a_revoked_token_is_refused_everywhere(issuer: LocalIssuer) -> None:
    """A token that was accepted is refused once it is revoked, and no other token is."""
    token, other = issuer.token("alice"), issuer.token("alice")
    assert statuses(token, other) == [200, 200]
    result = invoke("revoke", "-", standard_input=token + "\n")
    assert result.exit_code == 0
    assert "revoked, for the" in result.output
    assert statuses(token, other) == [401, 200]


@pytest.mark.parametrize("by", ["token", "subject"])
def test_a_revoked_token_is_explained(issuer: LocalIssuer, by: str) -> None:
    """Explaining a token asks the store as the guard does, and so tells of one that is accepted no more."""
    token = issuer.token(f"carol-{by}")
    assert invoke("token", "--explain", token).exit_code == 0
    assert invoke("revoke", *((token,) if by == "token" else ("--subject", f"carol-{by}"))).exit_code == 0
    result = invoke("token", "--explain", token)
    assert result.exit_code == 1
    assert "not accepted (token_revoked): the store has it" in result.output
    assert json.loads(invoke("token", "--json", "--explain", token).output)["reason"] == "token_revoked"


def test_no_store_to_explain_by(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer of the store nobody can say whether a token is accepted; a worker's memory is not seen."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "redis://127.0.0.1:1")
    result = invoke("token", "--json", "--explain", issuer.token("dora"))
    assert result.exit_code == 1
    assert json.loads(result.output)["accepted"] is None
    assert json.loads(result.output)["reason"] == "store_unavailable"
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "memory://")
    result = invoke("token", "--explain", issuer.token("dora"))
    assert result.exit_code == 0
    assert "in the memory of each worker" in result.output


def test_a_subject_and_a_session_are_revoked_everywhere(issuer: LocalIssuer) -> None:
    """All tokens of a subject that were issued before, and all of a session, are refused, and no others."""
    carol, dave, erin = (issuer.token(name, sid=f"of-{name}") for name in ("carol", "dave", "erin"))
    assert statuses(carol, dave, erin) == [200, 200, 200]
    result = invoke("revoke", "--subject", "carol")
    assert (result.exit_code, "for 2592000 s" in result.output) == (0, True)
    result = invoke("revoke", "--session", "of-dave", "--issuer", issuer.url, "--ttl", "600")
    assert (result.exit_code, "for 600 s" in result.output) == (0, True)
    assert statuses(carol, dave, erin) == [401, 401, 200]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say one of"),
        (("token", "--subject", "carol"), "say one of"),
        (("--subject", "carol", "--session", "s"), "say one of"),
        (("token", "--ttl", "5"), "says its issuer"),
        (("--subject", "carol", "--ttl", "-1"), "ttl"),
        (("--session", "s", "--issuer", "https://else.test"), "none of the issuers"),
    ],
)
def test_what_is_meant_has_to_be_clear(issuer: LocalIssuer, arguments: tuple[str, ...], says: str) -> None:
    """Several things at once, and what could not be kept, are refused with exit code 2."""
    result = invoke("revoke", *arguments)
    assert (result.exit_code, says in " ".join(result.output.split())) == (2, True)


@pytest.mark.parametrize(("claims", "says"), [({"jti": None}, "jti is missing"), ({"aud": "someone-else"}, "audience")])
def test_what_cannot_be_revoked(issuer: LocalIssuer, claims: dict[str, Any], says: str) -> None:
    """A token that cannot be told from others, or is not accepted anyway, is not revoked: exit code 1."""
    result = invoke("revoke", issuer.token(**claims))
    assert result.exit_code == 1
    assert "not revoked: " in result.output
    assert says in result.output


def test_revocation_has_to_be_on(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody would look the token up, revoking it is an error that names the variable."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_REVOCATION", "false")
    result = invoke("revoke", issuer.token())
    assert result.exit_code == 2
    assert "ASGI_GUARD_AUTH_REVOCATION" in result.output


def test_the_store_has_to_be_shared(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's memory would forget the revocation at once, so it is an error that names the variable."""
    monkeypatch.delenv("ASGI_GUARD_STORE_URL")
    result = invoke("revoke", issuer.token())
    assert result.exit_code == 2
    assert "ASGI_GUARD_STORE_URL" in result.output


def test_a_store_that_does_not_answer(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached is told: exit code 1."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "redis://127.0.0.1:9")
    result = invoke("revoke", issuer.token())
    assert result.exit_code == 1
    assert "the store does not answer" in result.output
