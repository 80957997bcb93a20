"""`asgi-guard check`: its words, its exit codes, and that it asks the store and the issuer."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import orjson
import pytest

from asgi_guard.identity.fetching import public_url
from tests.cli.conftest import NOBODY, program
from tests.configuring import DIGEST, SAID
from tests.end_to_end.serving import free_port
from tests.introspecting import CLIENT, OpaqueIssuer

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.testing import LocalIssuer
    from tests.cli.conftest import Command
    from tests.stores.server import Server


def test_nothing_configured(command: Command) -> None:
    """Without variables, all is well, and what is off is told with the variable that turns it on."""
    ran = command("check")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "request_id on" in lines
    assert "cors off set ASGI_GUARD_CORS_ALLOW_ORIGINS to turn it on" in lines
    assert "proxy off set ASGI_GUARD_PROXY_TRUSTED to turn it on" in lines
    assert "(all defaults)" in lines
    assert "\x1b" not in ran.out
    assert any(line.startswith("warning: identity is off: everyone may do everything") for line in lines)


def test_everything_configured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every variable set, every layer is on, and every value is shown but the secret ones."""
    for name, (text, _) in SAID.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", text)
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "redis://guard:hunter2@cache:6379/0")
    ran = command("check", "--no-probe", "--json")
    told = orjson.loads(ran.out)
    assert ran.code == 0
    assert set(told["layers"].values()) == {True}
    assert set(told["settings"]) == {f"ASGI_GUARD_{name}" for name, (text, _) in SAID.items() if text}
    assert told["settings"]["ASGI_GUARD_STORE_URL"] == "redis://***@cache:6379/0"
    assert told["settings"]["ASGI_GUARD_AUTH_API_KEYS"] == "ci"
    assert told["settings"]["ASGI_GUARD_CORS_ALLOW_METHODS"] == "PUT, DELETE"
    assert told["settings"]["ASGI_GUARD_AUTH_LEEWAY"] == "5"
    assert told["settings"]["ASGI_GUARD_ROUTES"] == "1 row"
    assert told["routes"] == ["any method /login"]
    assert told["probes"] == []
    assert "limits refuse nothing: ASGI_GUARD_RATE_SHADOW is on" in told["warnings"]
    assert any("SIGTERM does not drain under" in note for note in told["notes"])
    shown = command("check", "--no-probe").out
    for secret in ("hunter2", DIGEST):
        assert secret not in ran.out + shown


@pytest.mark.parametrize(
    ("paths", "on"),
    [(("off", "off"), False), (("off", "/ready"), True), (("/live", "off"), True)],
)
def test_probes_that_are_off(
    command: Command, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, str], on: bool
) -> None:
    """Health is on while a probe is answered, and off where none is."""
    for name, path in zip(("LIVE", "READY"), paths, strict=True):
        monkeypatch.setenv(f"ASGI_GUARD_HEALTH_{name}_PATH", path)
    assert orjson.loads(command("check", "--json").out)["layers"]["health"] is on


@pytest.mark.parametrize(
    ("name", "value", "on"),
    [("RATE_LIMIT", "", False), ("RATE_LIMIT", "9/second by ip", True), ("RATE_MESSAGES", "9/second", True)],
)
def test_limits_are_on_once_there_is_one(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, on: bool
) -> None:
    """That the store is asked who is revoked is no limit: without one, it is told that they are off."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "shop")
    monkeypatch.setenv("ASGI_GUARD_AUTH_REVOCATION", "true")
    monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    assert orjson.loads(command("check", "--no-probe", "--json").out)["layers"]["rate_limit"] is on
    off = " ".join(command("check", "--no-probe").out.split())
    assert ("rate_limit off set ASGI_GUARD_RATE_LIMIT to turn it on" in off) is not on


def test_rows_of_the_route_table(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is shown with its number and what it says."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    monkeypatch.setenv(
        "ASGI_GUARD_ROUTES",
        '[{"path": "/a/k:k:/[b]", "auth": "none"}, {"path": "/b", "methods": "GET", "scopes": ["x", "y"], "cost": 3}, '
        '{"path": "/hooks/*", "csrf": false}, {"path": "/free", "limits": "", "cost": 0}]',
    )
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "9/second by ip")
    lines = [" ".join(line.split()) for line in command("check").out.splitlines()]
    assert "1 any method /a/k:k:/[b] auth=none" in lines
    assert "2 GET /b scopes=x y, cost=3" in lines
    assert "3 any method /hooks/* csrf=false" in lines
    assert "4 any method /free limits=none, cost=0" in lines
    assert "csrf on" in lines


def test_a_value_equal_to_the_default_is_not_shown(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what differs from the defaults is listed."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_LEEWAY", "30.0")
    monkeypatch.setenv("ASGI_GUARD_LOG_SAMPLE", "1")
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "memory://")
    assert orjson.loads(command("check", "--json").out)["settings"] == {}


def test_store_and_issuer_answer(
    command: Command, configured: LocalIssuer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store and an issuer that answer are told with how long it took, and exit code 0."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", valkey.url)
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/second by ip")
    ran = command("check", "--json")
    told = orjson.loads(ran.out)
    assert ran.code == 0
    assert [(probe["name"], probe["ok"]) for probe in told["probes"]] == [("issuer keys", True), ("store", True)]
    assert all(probe["detail"].endswith(" ms") for probe in told["probes"])
    assert command("check").out.count("  ok  ") == 2


def test_a_store_that_forgets(
    command: Command, configured: LocalIssuer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that forgets keys once it is full is warned of where revocations are kept there."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", valkey.url)
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/second by ip")
    valkey.client.config_set("maxmemory", 1 << 30)
    valkey.client.config_set("maxmemory-policy", "volatile-lru")
    try:
        assert "maxmemory-policy" not in command("check").out
        monkeypatch.setenv("ASGI_GUARD_AUTH_REVOCATION", "true")
        ran = command("check", "--json")
        (told,) = [each for each in orjson.loads(ran.out)["warnings"] if "maxmemory-policy volatile-lru" in each]
        assert ran.code == 0
        assert f"warning: {told}" in command("check").out
        assert "maxmemory-policy" not in command("check", "--no-probe").out
    finally:
        valkey.client.config_set("maxmemory", 0)
        valkey.client.config_set("maxmemory-policy", "noeviction")


def test_the_store_does_not_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached is told, and has exit code 1."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", NOBODY)
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/second by ip")
    ran = command("check", "--json")
    assert ran.code == 1
    (probe,) = orjson.loads(ran.out)["probes"]
    assert (probe["name"], probe["ok"]) == ("store", False)
    assert "the store does not answer (ConnectionError): " in probe["detail"]
    assert "Error 111 connecting to 127.0.0.1:1" in probe["detail"]
    assert command("check", "--no-probe").code == 0


def test_a_store_that_only_counts_proofs_is_asked(
    command: Command, configured: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without limits and revocation, the store is asked where proofs of possession need it."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", NOBODY)
    monkeypatch.setenv("ASGI_GUARD_AUTH_DPOP", "accept")
    ran = command("check", "--json")
    assert [(probe["name"], probe["ok"]) for probe in orjson.loads(ran.out)["probes"]] == [
        ("issuer keys", True), ("store", False)
    ]  # fmt: skip


@pytest.mark.parametrize(("secret", "ok"), [(CLIENT[1], True), ("wrong", False)])
def test_the_introspection_endpoint_is_asked(
    command: Command, monkeypatch: pytest.MonkeyPatch, secret: str, ok: bool
) -> None:
    """Where opaque tokens are asked about, it is told whether this client may ask."""
    with OpaqueIssuer() as opaque:
        for name, value in (("URL", opaque.url), ("CLIENT_ID", CLIENT[0]), ("CLIENT_SECRET", secret)):
            monkeypatch.setenv(f"ASGI_GUARD_AUTH_INTROSPECTION_{name}", value)
        monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
        ran = command("check", "--json")
    (probe,) = orjson.loads(ran.out)["probes"]
    assert (probe["name"], probe["ok"]) == ("introspection", ok)
    assert (f"tokens of {opaque.origin}" in probe["detail"]) is ok
    assert ("answered 401: compare ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_ID" in probe["detail"]) is not ok
    assert ran.code == (0 if ok else 1)


@pytest.mark.parametrize("also", [(), ("--json",), ("--production",)])
def test_what_fails_is_shown_without_secrets(
    command: Command, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...]
) -> None:
    """Nor does what could not be had repeat the query of its URL, which may hold a key; nor does the log."""
    with OpaqueIssuer() as opaque:
        for name, value in {
            "ISSUER": opaque.origin,
            "AUDIENCE": "api",
            "JWKS_URL": f"{opaque.origin}/none?key=hunter2",
            "INTROSPECTION_URL": f"{opaque.origin}/none?key=hunter2",
            "INTROSPECTION_CLIENT_ID": "a",
            "INTROSPECTION_CLIENT_SECRET": "b",
            "INTROSPECTION_ISSUER": "https://id.example.com",
        }.items():
            monkeypatch.setenv(f"ASGI_GUARD_AUTH_{name}", value)
        ran = command("check", *also)
    assert ran.code == 1
    assert "hunter2" not in ran.out + ran.err


def test_whose_opaque_tokens_these_are(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the endpoint's origin is taken for the issuer is told, with the variable to name another one by."""
    for name, value in (("URL", "https://id.example.com/x/introspect"), ("CLIENT_ID", "a"), ("CLIENT_SECRET", "b")):
        monkeypatch.setenv(f"ASGI_GUARD_AUTH_INTROSPECTION_{name}", value)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    (note,) = [note for note in orjson.loads(command("check", "--no-probe", "--json").out)["notes"] if "opaque" in note]
    assert "those of https://id.example.com, " in note
    assert "ASGI_GUARD_AUTH_INTROSPECTION_ISSUER" in note
    monkeypatch.setenv("ASGI_GUARD_AUTH_INTROSPECTION_ISSUER", "https://id.example.com/x")
    assert "opaque" not in command("check", "--no-probe", "--json").out


def test_the_issuer_does_not_answer(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that cannot be reached is told, and has exit code 1."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    ran = command("check")
    assert ran.code == 1
    assert "issuer keys  failed  the keys of http://127.0.0.1" in ran.out


def test_a_broken_configuration() -> None:
    """Every problem is told on standard error, with exit code 2, nothing on standard output, and no traceback."""
    ran = program(
        "check",
        ASGI_GUARD_RATE_LIMITS="x",
        ASGI_GUARD_LOG_FORMAT="xml",
        ASGI_GUARD_CORS_MAX_AGE="5",
        ASGI_GUARD_STORE_URL="redis://:hunter2@cache:x",
    )
    assert (ran.code, ran.out) == (2, "")
    first, *told = ran.err.splitlines()
    assert first == "asgi-guard: the configuration has 4 problems:"
    assert sorted(line.split(": ")[0].strip() for line in told) == [
        "ASGI_GUARD_CORS_MAX_AGE",
        "ASGI_GUARD_LOG_FORMAT",
        "ASGI_GUARD_RATE_LIMITS",
        "ASGI_GUARD_STORE_URL",
    ]
    assert "hunter2" not in ran.err


@pytest.mark.parametrize("also", [(), ("--production",), ("--headers",), ("--server", "uvicorn")])
def test_problems_as_json(command: Command, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...]) -> None:
    """A script that asks for JSON gets the problems so, whatever it asks, beside what people are told."""
    monkeypatch.setenv("ASGI_GUARD_NOPE", "1")
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "redis://:hunter2@cache:x")
    ran = command("check", "--json", *also)
    assert ran.code == 2
    told = orjson.loads(ran.out)
    assert list(told) == ["problems"]
    assert [(set(each), each["name"]) for each in told["problems"]] == [
        ({"name", "message", "kind"}, "ASGI_GUARD_NOPE"),
        ({"name", "message", "kind"}, "ASGI_GUARD_STORE_URL"),
    ]
    assert all(f"  {each['name']}: {each['message']}" in ran.err.splitlines() for each in told["problems"])
    assert "hunter2" not in ran.out


def test_the_exit_code_of_a_server_that_does_not_drain(command: Command) -> None:
    """Under a server that ends at once the exit code is 1, as the command's help says."""
    ran = command("check", "--server", "hypercorn")
    assert (ran.code, "SIGTERM does not drain" in ran.out) == (1, True)
    told = " ".join(command("check", "--help").out.split())
    assert "draining does not work under the server; 2:" in told


def test_problems_that_are_no_text_as_json() -> None:
    """Bytes that are no UTF-8, as a variable's name may have, are told in JSON too."""
    ran = program("check", "--json", **{os.fsdecode(b"ASGI_GUARD_F\xff"): "1"})
    assert ran.code == 2
    assert json.loads(ran.out)["problems"][0]["name"] == "ASGI_GUARD_F\udcff"


def test_no_problems_as_json(command: Command) -> None:
    """Where the configuration can be used, there are none."""
    assert orjson.loads(command("check", "--json").out)["problems"] == []


def test_brackets_in_a_problem_are_text(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a message quotes is printed as it is, and is no markup."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "[red]:key:[/nope]")
    assert "'[red]:key:[/nope]' is not a limit" in command("check").err


def test_a_file_of_routes(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The rows of a file are shown as those of the variable are."""
    (tmp_path / "routes.toml").write_text('[[routes]]\npath = "/a"\nlimits = "1/second by ip"\n')
    monkeypatch.setenv("ASGI_GUARD_ROUTES_FILE", str(tmp_path / "routes.toml"))
    told = orjson.loads(command("check", "--json").out)
    assert told["routes"] == ["any method /a"]
    assert told["layers"]["rate_limit"] is True


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("rediss://u:p@cache", "rediss://***@cache"),
        ("redis://:p@ss@cache/1", "redis://***@cache/1"),
        ("redis://cache?password=hunter2", "redis://cache"),
        ("unix://u:p@/run/s?db=2", "unix://***@/run/s"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    """Of a store's URL, only what is no secret is shown."""
    assert public_url(url) == shown


@pytest.mark.parametrize("also", [(), ("--json",)])
def test_urls_of_issuers_are_shown_without_secrets(
    command: Command, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...]
) -> None:
    """The query of a URL where keys or tokens are asked about may hold a key, and is left out."""
    for name, value in {
        "ISSUER": "https://id.example.com",
        "AUDIENCE": "shop",
        "JWKS_URL": "https://id.example.com/keys?key=hunter2",
        "ISSUERS": '[{"issuer": "b", "jwks_url": "https://b.example/keys?key=hunter2"}, "https://c.example"]',
        "INTROSPECTION_URL": "https://id.example.com/introspect?key=hunter2",
        "INTROSPECTION_CLIENT_ID": "shop",
        "INTROSPECTION_CLIENT_SECRET": "hunter2",
        "INTROSPECTION_ISSUER": "https://id.example.com",
    }.items():
        monkeypatch.setenv(f"ASGI_GUARD_AUTH_{name}", value)
    ran = command("check", "--no-probe", *also)
    assert (ran.code, "hunter2" in ran.out + ran.err) == (0, False)
    for shown in ("https://id.example.com/keys", "https://id.example.com/introspect", "https://b.example/keys"):
        assert shown in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--production", "--headers"), "asked one at a time"),
        (("--production", "--server", "uvicorn"), "asked one at a time"),
        (("--headers", "--server", "uvicorn"), "asked one at a time"),
        (("--p99", "3"), "--p99 is for the checklist"),
        (("--graceful", "30"), "--graceful is for the checklist"),
        (("--headers", "--grace-period", "9"), "--grace-period is for the checklist"),
    ],
)
def test_options_that_would_not_be_heard(command: Command, arguments: tuple[str, ...], message: str) -> None:
    """An option that another one would silence is an error: a pipeline would go on with half of its answer."""
    ran = command("check", *arguments)
    assert ran.code == 2
    assert message in ran.err
