"""`asgi-guard token`: tokens of the local issuer, and why a token is not accepted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import orjson
import pytest

from asgi_guard.cli.token import HINTS_OF_CLAIMS
from asgi_guard.policy.vocabulary import DETAILS
from asgi_guard.testing import LocalIssuer, ProofKey
from tests.cli.running import invoke
from tests.introspecting import CLIENT, OpaqueIssuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def served() -> Iterator[LocalIssuer]:
    with LocalIssuer(algorithm="ES256").serve() as issuer:
        yield issuer


@pytest.fixture
def guarded(served: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> LocalIssuer:
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", served.url)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_AGE", "600")
    monkeypatch.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME", "7200")
    return served


def test_a_token_of_the_local_issuer(tmp_path: Path) -> None:
    """A token is signed with the key of the file, which is made when it is first needed, for its owner only."""
    key = tmp_path / "state" / "key.pem"
    first = invoke("token", "--key", str(key), "--subject", "bob", "--scope", "a", "--scope", "b").output.strip()
    claims = jwt.decode(first, options={"verify_signature": False})
    assert (claims["sub"], claims["scope"], claims["aud"]) == ("bob", "a b", "demo")
    assert claims["iss"] == "http://127.0.0.1:8001"
    assert key.stat().st_mode & 0o777 == 0o600
    second = orjson.loads(invoke("token", "--key", str(key), "--json").output)
    assert jwt.get_unverified_header(second["token"])["kid"] == jwt.get_unverified_header(first)["kid"]
    assert second["subject"] == "alice"


def test_the_environment_names_issuer_and_audience(guarded: LocalIssuer, tmp_path: Path) -> None:
    """Unless said, the token is of the configured issuer for the configured audience."""
    token = invoke("token", "--key", str(tmp_path / "key.pem")).output.strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"]) == (guarded.url, "api")


@pytest.mark.parametrize(
    ("issuer", "warned"),
    [
        ("https://id.example.com", True),
        ("https://127.0.0.1:8001", True),
        ("http://[::1", True),
        ("http://localhost:8001", False),
        ("http://127.0.0.1:9000/realm", False),
    ],
)
def test_an_issuer_that_is_elsewhere(command: Command, tmp_path: Path, issuer: str, warned: bool) -> None:
    """A token in the name of an issuer that no local one can be is said to be refused where that issuer is asked."""
    key = ("--key", str(tmp_path / "key.pem"))
    ran = command("token", *key, "--issuer", issuer, "--json")
    assert (ran.code, orjson.loads(ran.out)["issuer"]) == (0, issuer)
    assert (f"warning: {issuer} does not publish the key that this token is signed by" in ran.err) is warned
    assert ("say --issuer http://127.0.0.1:8001 --audience demo" in ran.err) is warned


def test_the_environment_names_an_issuer_elsewhere(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning does not go to standard output, where the token alone is."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    ran = command("token", "--key", str(tmp_path / "key.pem"))
    assert jwt.decode(ran.out.strip(), options={"verify_signature": False})["iss"] == "https://id.example.com"
    assert ran.err.startswith("warning: https://id.example.com does not publish the key")


def test_a_good_token_is_explained(guarded: LocalIssuer) -> None:
    """An accepted token's subject, scopes and time left are told, with exit code 0."""
    token = guarded.token("carol", scopes=["items:read"])
    result = invoke("token", "--explain", "-", standard_input=f"Bearer {token}\n")
    assert result.exit_code == 0
    assert "accepted: 'carol'" in result.output
    assert "scopes: items:read" in result.output
    told = orjson.loads(invoke("token", "--explain", token, "--json").output)
    assert (told["accepted"], told["subject"], told["scopes"]) == (True, "carol", ["items:read"])


def test_bound_tokens_are_explained(guarded: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bound token needs besides is told; that none is bound where all have to be, and how to take bound ones."""
    bound, plain = guarded.token(cnf=ProofKey().cnf), guarded.token()
    result = invoke("token", "--explain", bound)
    assert result.exit_code == 1
    assert "ASGI_GUARD_AUTH_DPOP and ASGI_GUARD_AUTH_CLIENT_CERT take tokens that are bound" in " ".join(
        result.output.split()
    )
    monkeypatch.setenv("ASGI_GUARD_AUTH_DPOP", "require")
    result = invoke("token", "--explain", "-", standard_input=f"DPoP {bound}\n")
    assert result.exit_code == 0
    assert "only with a proof by the key that it is bound to" in result.output
    told = orjson.loads(invoke("token", "--explain", bound, "--json").output)
    assert [need.partition(" that")[0] for need in told["needs"]] == ["a proof by the key"]
    result = invoke("token", "--explain", plain)
    assert result.exit_code == 1
    assert "not accepted (binding)" in result.output
    assert "AUTH_DPOP=require takes no other" in result.output


def bad_tokens(issuer: LocalIssuer) -> dict[str, str]:
    good = issuer.token()
    head, body, signature = good.split(".")
    other = LocalIssuer(issuer.url, algorithm="ES256")
    return {
        "too_large": good + "a" * 9000,
        "malformed": "not-a-token",
        "algorithm": jwt.encode({"sub": "a"}, "s" * 32, "HS256"),
        "unsupported": issuer.token(headers={"zip": "DEF"}),
        "issuer": issuer.token(iss="https://elsewhere.example"),
        "audience": issuer.token(aud="someone-else"),
        "expired": issuer.token(lifetime=-3600),
        "not_yet_valid": issuer.token(nbf=32503680000),
        "too_old": issuer.token(iat=int(time.time()) - 3600),
        "too_long": issuer.token(lifetime=7300),
        "unknown_key": other.token(),
        "signature": f"{head}.{body}.{'A' * len(signature)}",
        "claim": issuer.token(client_id=5),
    }


@pytest.mark.parametrize(
    "reason", sorted(set(DETAILS) - {"ambiguous_key", "type", "inactive", "token_revoked", "binding"})
)
def test_a_bad_token_is_explained(guarded: LocalIssuer, reason: str) -> None:
    """Every reason is told with what to do about it, and exit code 1."""
    token = bad_tokens(guarded)[reason]
    result = invoke("token", "--explain", token)
    assert result.exit_code == 1
    assert f"not accepted ({reason}):" in result.output
    assert f"what to do: {DETAILS[reason].advice}" in result.output
    assert orjson.loads(invoke("token", "--explain", token, "--json").output)["reason"] == reason


@pytest.mark.parametrize("name", ["jti", "cnf", "sub"])
def test_what_to_do_about_a_claim(guarded: LocalIssuer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """About a claim that is wrong, what is said is of that claim."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_REVOCATION", "true")
    claims: dict[str, Any] = {name: {"jkt": "k" * 43} if name == "cnf" else None}
    token = guarded.token(**claims)
    said = invoke("token", "--explain", token).output
    assert f"what to do: {HINTS_OF_CLAIMS.get(name, DETAILS['claim'].advice)}" in said


def test_an_end_in_milliseconds(guarded: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that ends in some ten thousand years is accepted, and told to count in another unit."""
    for bound in ("AGE", "LIFETIME"):
        monkeypatch.setenv(f"ASGI_GUARD_AUTH_MAX_TOKEN_{bound}", "")
    said = invoke("token", "--explain", guarded.token(exp=int(time.time() * 1000))).output
    assert "accepted" in said
    assert "its exp seems to count milliseconds" in said


def test_a_token_of_another_type_is_explained(guarded: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only marked access tokens are taken, that a token is none is the reason told."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_PROFILE", "at+jwt")
    result = invoke("token", "--explain", guarded.token(headers={"typ": "JWT"}))
    assert result.exit_code == 1
    assert "not accepted (type): typ is 'JWT', not at+jwt" in result.output


def test_an_opaque_token_is_explained(guarded: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opaque token is explained by what the issuer says of it."""
    with OpaqueIssuer() as opaque:
        monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "")
        monkeypatch.setenv("ASGI_GUARD_AUTH_INTROSPECTION_URL", opaque.url)
        monkeypatch.setenv("ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_ID", CLIENT[0])
        monkeypatch.setenv("ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_SECRET", CLIENT[1])
        monkeypatch.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_AGE", "")
        monkeypatch.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME", "")
        accepted = invoke("token", "--explain", opaque.token())
        with monkeypatch.context() as bounded:
            bounded.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_AGE", "600")
            ageless = invoke("token", "--explain", "opaque-token")
        refused = invoke("token", "--explain", "unknown")
        with monkeypatch.context() as mistaken:
            mistaken.setenv("ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_SECRET", "hunter2")
            unjudged = invoke("token", "--explain", "unknown")
        others = invoke("token", "--explain", opaque.token("others", iss=f"{opaque.origin}/realms/acme"))
        opaque.tokens["endless"] = {"active": True, "sub": "bob", "aud": "api", "token_type": "Bearer"}
        opaque.tokens["nobodys"] = {"active": True, "client_id": "shop", "aud": "api", "exp": time.time() + 300}
        nobodys = invoke("token", "--explain", "nobodys")
        unmarked = invoke("token", "--explain", opaque.token("unmarked", exp=None))
        endless = [invoke("token", "--explain", "endless", *options) for options in ((), ("--json",))]
    assert (accepted.exit_code, "accepted: 'alice'" in accepted.output) == (0, True)
    assert (refused.exit_code, "not accepted (inactive)" in refused.output) == (1, True)
    assert "it cannot be judged: " in unjudged.output
    assert "it answered 401: compare ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_ID" in unjudged.output
    assert "not accepted (issuer): iss is " in others.output
    assert "ASGI_GUARD_AUTH_INTROSPECTION_ISSUER" in others.output
    assert f"what to do: {DETAILS['inactive'].advice}" in refused.output
    assert "not accepted (claim): iat is missing, and the token's age is bounded" in ageless.output
    assert f"what to do: {HINTS_OF_CLAIMS['iat']}" in ageless.output
    assert "not accepted (claim): sub is missing: the answer does not say whose it is" in nobodys.output
    assert "what to do: " + HINTS_OF_CLAIMS["sub"] in nobodys.output
    assert "not accepted (type): neither exp nor token_type is there" in unmarked.output
    assert "unless ASGI_GUARD_AUTH_INTROSPECTION_UNSAFE_ANY_TYPE takes all" in unmarked.output
    assert "as long as the issuer calls it active" in endless[0].output
    assert json.loads(endless[1].output)["seconds_left"] is None


def test_an_ambiguous_key_is_explained(guarded: LocalIssuer) -> None:
    """Where several published keys could have signed it, that is the reason told."""
    kept = guarded.published
    try:
        guarded.rotate(keep=True)
        result = invoke("token", "--explain", guarded.token(headers={"kid": None}))
    finally:
        guarded.published = kept
    assert "not accepted (ambiguous_key)" in result.output


def test_an_issuer_that_does_not_answer(guarded: LocalIssuer) -> None:
    """Without the issuer's keys a token cannot be judged, and that is what is told."""
    token = guarded.token()
    guarded.outage = True
    try:
        result = invoke("token", "--explain", token)
        told = orjson.loads(invoke("token", "--explain", token, "--json").output)
    finally:
        guarded.outage = False
    assert result.exit_code == 1
    assert "it cannot be judged" in result.output
    assert told["reason"] == "keys_unavailable"


def test_without_an_issuer_there_is_nothing_to_explain() -> None:
    """With no issuer configured, the variable to set is named, with exit code 2."""
    result = invoke("token", "--explain", "x")
    assert result.exit_code == 2
    assert "ASGI_GUARD_AUTH_ISSUER" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--explain", "a.b.c", "--subject", "bob"), "leave out --subject"),
        (("--explain", "a.b.c", "--scope", "x", "--lifetime", "5"), "leave out --scope, --lifetime"),
        (("--explain", "-"), "nothing was read from standard input"),
        (("--subject", ""), "a token is somebody's: name whose"),
    ],
)
def test_what_cannot_be_meant(arguments: tuple[str, ...], told: str) -> None:
    """An option that would be ignored, a token that is not there and a subject that is none are refused."""
    result = invoke("token", *arguments, standard_input=" \n")
    assert result.exit_code == 2
    assert told in result.output
