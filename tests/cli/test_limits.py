"""`asgi-guard limits`, with a real store that a guarded app has used."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from asgi_guard import Guard
from asgi_guard.policy.identity import api_key_digest
from asgi_guard.policy.rates import parse_limits
from asgi_guard.stores import RedisStore, operate
from tests.asgi import Echo, get
from tests.cli.running import invoke
from tests.stores.cluster import Cluster
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.cli.conftest import Command

ALICE = "203.0.113.9"  # the address that requests of these tests come from
KEY = b"a-key"
IP, AT_ONCE = (limit.bucket for limit in parse_limits("10/day by ip; 7 at once by ip"))


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def server(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, empty, and named by the environment."""
    valkey.client.flushall()
    for name, value in {
        "STORE_URL": valkey.url,
        "STORE_TIMEOUT": "5",
        "STORE_PREFIX": "a[b]*:",
        "RATE_LIMIT": (
            "10/day by ip; 50/hour burst 20 by api-key; 7 at once by ip; 1000/hour by route; 40/day by header:X-Team"
        ),
        "AUTH_API_KEYS": f"ci={api_key_digest(KEY)}",
        "ROUTES": (
            '[{"path": "/v1/login", "methods": ["GET"]}, {"path": "/v1/login", "methods": ["POST"]}, '
            '{"path": "/*", "auth": "optional"}, {"path": "/", "auth": "optional"}]'
        ),
    }.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    return valkey


def use(count: int, *headers: tuple[bytes, bytes]) -> list[int]:
    """What a guarded app answers."""

    async def ask() -> list[int]:
        guard = Guard(Echo())
        try:
            return [(await get(guard, "/", list(headers))).status or 0 for _ in range(count)]
        finally:
            for layer in guard.layers:
                await layer.shutdown()

    return asyncio.run(ask())


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = invoke("limits", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.output)
    return found


def test_what_is_left_of_a_client_is_shown(server: Server) -> None:
    """Every limit that a client has used is shown, with what is left of it."""
    use(3, (b"x-team", b"red"))
    use(2, (b"x-team", "bl\u00e5".encode()))

    assert [(row["limit"], row["left"], row["of"]) for row in rows("show", f"ip:{ALICE}")] == [("ip", 5, 10)]
    assert [(row["limit"], row["left"]) for row in rows("show", "header:X-Team=bl\u00e5")] == [("header-x-team", 38)]
    assert [(row["limit"], row["left"]) for row in rows("show", "header:X-TEAM=red")] == [("header-x-team", 37)]
    assert [(row["limit"], row["left"]) for row in rows("show", "route:root-2")] == [("route", 995)]
    text = invoke("limits", "show", f"ip:{ALICE}").output
    assert "5 of 10 left" in text
    assert "full in" in text


def test_an_api_key_is_found_by_its_name(server: Server) -> None:
    """A key is named as in the settings, or by the hash that the store knows it by, and its secret stands nowhere."""
    use(4, (b"x-api-key", KEY))

    by_name = rows("show", "api-key:ci")
    assert [(row["limit"], row["left"]) for row in by_name] == [("api-key", 16)]
    assert rows("show", by_name[0]["client"]) == by_name
    assert not [name for name in server.client.scan_iter() if KEY in name or b"ci" in name]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("api-key:ic", "nobody is counted as api-key:ic: there are api-key:ci"),
        ("header:X-Taem=red", "nobody is counted as header:x-taem: there are header:x-team"),
    ],
)
@pytest.mark.parametrize("question", ["show", "reset"])
def test_a_key_that_nobody_can_have(server: Server, question: str, key: str, said: str) -> None:
    """An API key that there is not, or a header that no limit goes by, is told, and not that nothing is used."""
    ran = invoke("limits", question, key)
    assert ran.exit_code == 2
    assert f"Invalid value for KEY: {said}" in ran.output


def test_a_client_that_used_nothing(server: Server) -> None:
    """Of a client that used nothing, nothing is shown."""
    assert rows("show", "ip:198.51.100.1") == []
    assert "nothing is used" in invoke("limits", "show", "ip:198.51.100.1").output


@pytest.mark.parametrize("name", ["unknown", "testclient", "0123456789abcdef" * 2])
def test_a_client_without_an_address(server: Server, name: str) -> None:
    """What stands in the place of an address is taken as `top` prints it."""
    server.client.set(f"a[b]*:{{ip:{name}}}:{IP}", server.client.time()[0] * 1_000_000 + 3_600_000_000)
    (printed,) = rows("top")
    (shown,) = rows("show", printed["client"])

    assert shown | {"full_in_seconds": 0} == printed | {"full_in_seconds": 0}  # a second may have passed between
    assert f"1 limit of ip:{name} had been used" in invoke("limits", "reset", printed["client"]).output


@pytest.mark.parametrize("key", ["route:/", "route:root-2"])
def test_a_row_is_found_by_its_path(server: Server, key: str) -> None:
    """A row's bucket is named by the row's path, or as the store names it."""
    use(2)

    assert [(row["client"], row["left"]) for row in rows("show", key)] == [("route:root-2", 998)]
    assert rows("show", "route:others") == []


def test_an_address_is_shown_by_its_network(server: Server) -> None:
    """An IPv6 address stands for the network that limits count."""
    server.client.set(f"a[b]*:{{ip:2001:db8::/64}}:{IP}", server.client.time()[0] * 1_000_000 + 3_600_000_000)

    (row,) = rows("show", "ip:2001:db8::1234")

    assert (row["client"], row["left"]) == ("ip:2001:db8::/64", 9)


def test_a_reset_fills_the_buckets(server: Server) -> None:
    """A client that was refused is admitted again after a reset, and others are left as they were."""
    assert use(11)[-1] == 429
    use(2, (b"x-team", b"red"))

    result = invoke("limits", "reset", f"ip:{ALICE}")

    assert result.exit_code == 0
    assert f"2 limits of ip:{ALICE} had been used, and are full again" in result.output
    assert "may go on for 1 s" in result.output
    assert use(1) == [200]
    nothing = invoke("limits", "reset", "ip:198.51.100.1").output
    assert nothing == "none of the limits of ip:198.51.100.1 had been used\n"


def test_requests_under_way_are_counted(server: Server) -> None:
    """Requests that are under way are shown, and those whose worker is gone are not."""
    now = server.client.time()[0] * 1_000_000
    name = f"a[b]*:{{ip:{ALICE}}}:{AT_ONCE}"
    server.client.zadd(name, {"one": now + 50_000_000, "two": now + 50_000_000, "gone": now - 1})

    (row,) = rows("show", f"ip:{ALICE}")

    assert (row["limit"], row["left"], row["under_way"]) == ("ip-at-once", 5, 2)
    assert "2 under way" in invoke("limits", "top").output


def test_the_emptiest_come_first(server: Server) -> None:
    """The clients with the least left come first, of all in the store, and as many as were asked for."""
    now = server.client.time()[0] * 1_000_000
    day = 86_400_000_000
    for index in range(30):
        server.client.set(f"a[b]*:{{ip:198.51.100.{index}}}:{IP}", now + (index % 10) * day // 10)
    server.client.set("a[b]*:{ip:192.0.2.1}:of-another-time:1x1", now + day)
    server.client.set("a[b]*:{ip:192.0.2.1}:ip:1000x1", now + day)
    server.client.set("a[b]*:revoked:t", 1)
    server.client.set("a[b]*:{odd}", 1)
    server.client.set(f"aXbXX:{{ip:192.0.2.2}}:{IP}", now + day)

    found = rows("top", "--count", "5")

    assert [row["left"] for row in found] == [1, 1, 1, 2, 2]
    everything = rows("top", "--count", "1000")
    assert len(everything) == 32
    assert [(row["client"], row["left"]) for row in everything[-2:]] == [("ip:192.0.2.1", None)] * 2
    assert {row["limit"] for row in everything[-2:]} == {"ip", "of-another-time"}
    assert "no longer configured" in invoke("limits", "top", "--count", "1000").output


def test_many_buckets_take_few_round_trips(server: Server) -> None:
    """However many buckets there are, they are asked for by the thousand."""
    now = server.client.time()[0] * 1_000_000
    names = [f"a[b]*:{{ip:2001:db8:{index:x}::/64}}:" for index in range(5000)]
    server.client.mset({name + IP: now + 3_600_000_000 for name in names})
    for name in names[:2500]:
        server.client.zadd(f"{name}{AT_ONCE}", {"one": now + 50_000_000})

    before = server.client.info("stats")["total_reads_processed"]
    found = rows("top", "--count", "9999")
    reads = server.client.info("stats")["total_reads_processed"] - before

    assert len(found) == 7500
    assert sum(row["under_way"] for row in found) == 2500
    assert reads < 500


@pytest.mark.parametrize("patience", [0.0, 0.001])
def test_a_time_that_ends_between_two_pages(server: Server, patience: float) -> None:
    """No more pages are asked for once the time is over, however quickly they would come."""
    server.client.mset({f"p:{{ip:2001:db8:{index:x}::/64}}:{IP}": 1 for index in range(20_000)})

    async def scan() -> int:
        store = RedisStore(server.url)
        found = 0
        try:
            async for _ in operate.scan(store.client(), "p:", patience):
                found += 1
        except TimeoutError:
            return found
        finally:
            await store.aclose()
        raise AssertionError("it went on to the end")

    assert asyncio.run(scan()) <= 5000


@pytest.mark.parametrize("slow", [0, 3])
def test_the_time_is_over(server: Server, command: Command, monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    """What was found when the time is over is printed, and that it is not all is said; nothing is no answer."""
    use(3, (b"x-team", b"red"))
    scan = Redis.scan_iter

    async def forever(client: Redis, **options: Any) -> AsyncIterator[bytes]:
        seen = 0
        async for each in scan(client, **options):
            if seen == slow:
                break
            seen += 1
            yield each
        await asyncio.sleep(60)

    monkeypatch.setattr(Redis, "scan_iter", forever)
    monkeypatch.setattr(sys.modules["asgi_guard.cli.limits"], "PATIENCE", 0.5)
    ran = command("limits", "top", "--json")
    if not slow:
        assert ran.code == 1
        assert "the store does not answer (TimeoutError)" in ran.err
        return
    assert ran.code == 0
    assert len(json.loads(ran.out)) == slow
    assert "these are not all: 3 buckets were looked at in 0.5 s" in ran.err


def test_keys_of_other_types(server: Server) -> None:
    """A key of another type that bears a bucket's name is none, and ends nothing."""
    use(3)
    server.client.rpush(f"a[b]*:{{ip:192.0.2.1}}:{IP}", "x")
    server.client.hset(f"a[b]*:{{ip:{ALICE}}}:{AT_ONCE}", "x", "y")
    assert [row["limit"] for row in rows("top")] == ["ip", "header-x-team", "route"]
    assert [row["limit"] for row in rows("show", f"ip:{ALICE}")] == ["ip", "header-x-team"]


@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated usage:DeprecationWarning")  # redis 7.4
def test_the_permissions_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the permissions that the page on limits names, it looks into a cluster, too."""
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    table = page.partition("| a user of the server needs |")[2].partition("\n\n")[0]
    named = [each.replace("\\|", "|") for each in re.findall(r"\+\S+[a-z]", table)]
    with Cluster() as cluster:
        for node in cluster.masters:
            node.client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~asgi-guard:*", *named)
        monkeypatch.setenv("ASGI_GUARD_STORE_URL", cluster.url.replace("://", "://few:pw@"))
        monkeypatch.setenv("ASGI_GUARD_STORE_TIMEOUT", "5")
        monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "10/day by ip; 7 at once by ip")
        assert use(1) == [200]
        for words in (("show", f"ip:{ALICE}"), ("top",)):
            assert [row["left"] for row in rows(*words)] == [9]
        assert "1 limit" in invoke("limits", "reset", f"ip:{ALICE}").output


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("203.0.113.9", "KEY is ip:ADDRESS"),
        ("ip:203.0.113.999", "'203.0.113.999' is no address"),
        ("ip:2001:1::2::3", "'2001:1::2::3' is no address"),
        ("route:nowhere", "there is no row nowhere: there are route:/v1/login, route:/*, route:/, route:others"),
        ("route:/v1", "there is no row /v1: there are"),
        ("route:/v1/login", "there are several rows of /v1/login: write route:v1-login or route:v1-login-2"),
        ("ip:", "KEY is"),
        ("user:alice", "ASGI_GUARD_AUTH_ISSUER is not set"),
        ("header:x-team", "KEY is"),
        ("token:alice", "KEY is"),
    ],
)
def test_a_key_that_is_none(server: Server, key: str, says: str) -> None:
    """A key that names no client is refused with what a key is."""
    result = invoke("limits", "show", key)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_user_is_found_by_the_subject(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subject of the issuer is found by its name."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    assert "limits of token:" in invoke("limits", "show", "user:alice").output


def test_a_user_of_the_introspection_endpoint_is_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tokens are opaque, the issuer is the endpoint's; beside another one, whose subject it is has to be said."""
    for name, value in {"URL": "https://id.example.com/ask", "CLIENT_ID": "a", "CLIENT_SECRET": "b"}.items():
        monkeypatch.setenv(f"ASGI_GUARD_AUTH_INTROSPECTION_{name}", value)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    alone = invoke("limits", "show", "user:alice").output
    assert "limits of token:" in alone
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUERS", '[{"issuer": "https://other.example.com"}]')
    monkeypatch.setenv("ASGI_GUARD_AUTH_INTROSPECTION_ISSUER", "https://id.example.com")
    assert "user:ISSUER#SUBJECT" in invoke("limits", "show", "user:alice").output
    assert invoke("limits", "show", "user:https://id.example.com#alice").output == alone


def test_a_store_of_ones_own_has_nothing_to_show(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each process counts for itself, there is nothing to look into, and that is said."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "memory://")
    result = invoke("limits", "top")
    assert result.exit_code == 2
    assert "ASGI_GUARD_STORE_URL" in result.output


def test_without_limits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no limit is set, that is said."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "")
    result = invoke("limits", "show", "ip:203.0.113.9")
    assert result.exit_code == 2
    assert "no limit is set" in result.output


@pytest.mark.parametrize("asked", [("top",), ("show", "ip:203.0.113.9"), ("reset", "ip:203.0.113.9")], ids=" ".join)
@pytest.mark.parametrize(
    ("url", "raised"),
    [
        ("unix:///nowhere/s?password=hunter2", "ConnectionError"),
        ("redis+cluster://:hunter2@127.0.0.1:1", "RedisClusterException"),
    ],
    ids=["single", "cluster"],
)
def test_a_store_that_does_not_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch, url: str, raised: str, asked: tuple[str, ...]
) -> None:
    """Where the store does not answer, that is said, without its URL."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", url)
    result = invoke("limits", *asked)
    assert result.exit_code == 1
    assert f"the store does not answer ({raised})" in result.output
    assert "hunter2" not in result.output
