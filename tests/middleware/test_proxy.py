"""The Proxy layer: the client's address and scheme, as trusted proxies say them, in the scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from asgi_guard import (
    AccessLogMiddleware,
    ConfigError,
    Guard,
    GuardSettings,
    HealthSettings,
    HostsSettings,
    LogSettings,
    MetricsSettings,
    ProxyMiddleware,
    ProxySettings,
    RateSettings,
)
from asgi_guard.middleware import proxy
from tests.asgi import Echo, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Header

PROXY = "203.0.113.9"  # the peer of every request of tests.asgi
FOR = b"x-forwarded-for"
PROTO = b"x-forwarded-proto"


@pytest.mark.parametrize(
    ("trusted", "headers", "client", "scheme"),
    [
        ("", [(FOR, b"198.51.100.7"), (PROTO, b"https")], (PROXY, 50000), "http"),
        ("10.0.0.0/8", [(FOR, b"198.51.100.7"), (PROTO, b"https")], (PROXY, 50000), "http"),
        (PROXY, [], (PROXY, 50000), "http"),
        (PROXY, [(FOR, b"198.51.100.7")], ("198.51.100.7", 0), "http"),
        (PROXY, [(FOR, b"198.51.100.7"), (PROTO, b"https")], ("198.51.100.7", 0), "https"),
        (PROXY, [(FOR, b"198.51.100.7"), (PROTO, b"wss")], ("198.51.100.7", 0), "https"),
        (PROXY, [(FOR, b"198.51.100.7"), (PROTO, b"http")], ("198.51.100.7", 0), "http"),
        (PROXY, [(FOR, b"6.6.6.6, 198.51.100.7")], ("198.51.100.7", 0), "http"),
        (PROXY, [(FOR, b"6.6.6.6"), (FOR, b"198.51.100.7")], ("198.51.100.7", 0), "http"),
        (PROXY, [(FOR, b"garbage\xff")], (PROXY, 50000), "http"),
        (PROXY, [(PROTO, b"gopher")], (PROXY, 50000), "http"),
        (f"{PROXY}, 10.0.0.0/8", [(FOR, b"198.51.100.7, 10.1.1.1")], ("198.51.100.7", 0), "http"),
    ],
)
async def test_forwarded_for(trusted: str, headers: list[Header], client: tuple[str, int], scheme: str) -> None:
    """The app is shown the client that trusted proxies name, and the connection's other end otherwise."""
    app = Echo()
    await get(ProxyMiddleware(app, trusted=trusted), headers=headers)
    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (client, scheme)


async def test_forwarded() -> None:
    """With `forwarded` configured, that header is read and the other family is not."""
    app = Echo()
    layer = ProxyMiddleware(app, trusted=[PROXY], header="forwarded")
    await get(layer, headers=[(b"forwarded", b"for=198.51.100.7;proto=https"), (FOR, b"6.6.6.6"), (PROTO, b"http")])
    assert (app.scopes[0]["client"], app.scopes[0]["scheme"]) == (("198.51.100.7", 0), "https")


@pytest.mark.parametrize(("proto", "scheme"), [(b"https", "wss"), (b"wss", "wss"), (b"http", "ws"), (b"ws", "ws")])
async def test_websocket(proto: bytes, scheme: str) -> None:
    """A WebSocket's scheme is `ws` or `wss`, however the proxy writes it."""
    app = Echo()
    await call(ProxyMiddleware(app, trusted=PROXY), websocket_scope(headers=[(PROTO, proto)]))
    assert app.scopes[0]["scheme"] == scheme


async def test_unknown_peer() -> None:
    """Where the server names no peer, no header is believed."""
    app = Echo()
    await get(ProxyMiddleware(app, trusted="0.0.0.0/0"), headers=[(FOR, b"198.51.100.7")], client=None)
    assert app.scopes[0]["client"] is None


async def test_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found out is remembered within bounds, and each client is told apart all the same."""
    monkeypatch.setattr(proxy, "MAX_REMEMBERED", 3)
    app = Echo()
    layer = ProxyMiddleware(app, trusted=PROXY)
    clients = [f"198.51.100.{number}" for number in range(10)] * 2
    for client in clients:
        await get(layer, headers=[(FOR, client.encode())])
        assert 0 < len(layer._known) <= 3
    await get(layer, headers=[(FOR, b"198.51.100.1")], client=("192.0.2.1", 1))
    assert [scope["client"][0] for scope in app.scopes] == [*clients, "192.0.2.1"]


async def test_what_is_remembered_is_of_all_that_was_said() -> None:
    """Whoever says one thing more than a request that is remembered, another line or another host, is judged anew."""
    app = Echo()
    layer = ProxyMiddleware(app, trusted=PROXY, host=True)
    own, of_a, of_b = (FOR, b"198.51.100.7"), (b"x-forwarded-host", b"a.example"), (b"x-forwarded-host", b"b.example")
    await get(layer, headers=[own, of_a])
    await get(layer, headers=[own, of_b])
    await get(layer, headers=[(FOR, PROXY.encode())])
    await get(layer, headers=[own, (FOR, PROXY.encode())])
    assert [dict(scope["headers"])[b"host"] for scope in app.scopes[:2]] == [b"a.example", b"b.example"]
    assert [scope["client"][0] for scope in app.scopes[2:]] == [PROXY, "198.51.100.7"]


async def test_a_scheme_that_no_proxy_says_is_the_servers() -> None:
    """Behind a proxy that says nothing of the scheme, what came by TLS to this server stays so."""
    app = Echo()
    await get(ProxyMiddleware(app, trusted=PROXY), headers=[(FOR, b"198.51.100.7")], scheme="https")
    assert app.scopes[0]["scheme"] == "https"


def test_bad_network() -> None:
    """What is no network is refused at construction, by name."""
    with pytest.raises(ConfigError, match="trusted: 'everyone'"):
        ProxyMiddleware(Echo(), trusted="10.0.0.0/8, everyone")
    with pytest.raises(ConfigError, match=r"trusted: '\*' is not an address .*or say how many proxies there are"):
        ProxyMiddleware(Echo(), trusted="*")


def test_bad_list() -> None:
    """What starts like JSON and is none is refused at construction."""
    with pytest.raises(ConfigError, match="trusted"):
        ProxyMiddleware(Echo(), trusted='["10.0.0.0/8"')


async def test_hops() -> None:
    """With a number of proxies, the entry at that place is the client, over a UNIX socket too."""
    app = Echo()
    layer = ProxyMiddleware(app, hops=2)
    await get(layer, headers=[(FOR, b"6.6.6.6, 198.51.100.7, 10.0.0.2"), (PROTO, b"https")], client=None)
    await get(layer, headers=[(FOR, b"6.6.6.6"), (PROTO, b"https")])
    assert [(scope["client"], scope["scheme"]) for scope in app.scopes] == [
        (("198.51.100.7", 0), "https"),
        ((PROXY, 50000), "http"),
    ]


async def test_host() -> None:
    """The host that the proxy names takes the place of its own for the app, and nobody else's header is changed."""
    app = Echo()
    layer = ProxyMiddleware(app, trusted=PROXY, host=True)
    sent = http_scope(headers=[(b"x-forwarded-host", b"api.example.com"), (b"cookie", b"a=1"), (b"cookie", b"b=2")])
    before = list(sent["headers"])
    await call(layer, sent)
    assert app.scopes[0]["headers"] == [(b"host", b"api.example.com"), *before[1:]]
    assert sent["headers"] == before


async def test_host_of_a_stranger() -> None:
    """A host that nobody trusted names, that is none, or that was not asked for, changes nothing."""
    app = Echo()
    for layer, value in [
        (ProxyMiddleware(app, trusted="10.0.0.0/8", host=True), b"evil.example"),
        (ProxyMiddleware(app, trusted=PROXY, host=True), b"evil.example:99999"),
        (ProxyMiddleware(app, trusted=PROXY), b"evil.example"),
    ]:
        await get(layer, headers=[(b"x-forwarded-host", value)])
    assert {dict(scope["headers"])[b"host"] for scope in app.scopes} == {b"testserver"}


@pytest.mark.parametrize(
    ("options", "peer", "headers", "told"),
    [
        ({}, "10.0.0.5", [(FOR, b"198.51.100.7")], ["10.0.0.5 sent x-forwarded-for", "PROXY_TRUSTED"]),
        ({}, "::1", [(b"x-real-ip", b"198.51.100.7")], ["::1 sent x-real-ip", "PROXY_TRUSTED"]),
        ({}, "100.64.0.9", [(b"forwarded", b"for=198.51.100.7")], ["100.64.0.9 sent forwarded", "PROXY_TRUSTED"]),
        ({}, None, [(FOR, b"198.51.100.7")], ["a UNIX socket sent x-forwarded-for", "PROXY_HOPS"]),
        ({}, "", [(FOR, b"198.51.100.7")], ["a UNIX socket sent x-forwarded-for", "PROXY_HOPS"]),
        ({"trusted": "10.0.0.0/8"}, None, [(FOR, b"198.51.100.7")], ["PROXY_HOPS in the place of", "PROXY_TRUSTED"]),
        ({"trusted": "10.0.0.0/8"}, "172.18.0.1", [(FOR, b"198.51.100.7")], ["172.18.0.1", "PROXY_TRUSTED"]),
        ({"trusted": "10.0.0.0/8"}, "10.0.0.5", [(b"x-real-ip", b"198.51.100.7")], ["10.0.0.5", "PROXY_HEADER"]),
        ({}, "10.0.0.5", [(b"via", b"1.1 front")], ["10.0.0.5 sent via", "PROXY_TRUSTED"]),
        ({"trusted": "10.0.0.0/8"}, "10.0.0.5", [(b"x-forwarded-proto", b"https")], ["10.0.0.5", "PROXY_HEADER"]),
        ({"trusted": "10.0.0.0/8"}, "10.0.0.5", [(b"via", b"1.1 front"), (FOR, b"198.51.100.7")], []),
        ({}, "8.8.8.8", [(FOR, b"198.51.100.7")], []),
        ({}, "testclient", [(FOR, b"198.51.100.7")], []),
        ({}, "10.0.0.5", [], []),
        ({"trusted": "10.0.0.0/8"}, "10.0.0.5", [(FOR, b"198.51.100.7")], []),
        ({"trusted": "10.0.0.0/8"}, "10.0.0.5", [(FOR, b"unknown")], []),
        ({"hops": 1}, None, [(FOR, b"198.51.100.7")], []),
    ],
)
async def test_forgotten_proxy(
    options: dict[str, Any], peer: str | None, headers: list[Header], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A neighbour that forwards and is not read is told of, once, with what to write; a stranger may be pretending."""
    layer = ProxyMiddleware(Echo(), **options)
    for _ in range(3):
        await call(layer, http_scope(headers=headers, client=None if peer is None else (peer, 5000)))
    assert len(caplog.messages) == bool(told)
    assert all(part in caplog.text for part in told)


@pytest.mark.parametrize(
    ("client", "value"), [(("10.1.2.3", 0), b"198.51.100.7"), (("10.1.2.3", 5000), b"10.1.2.3"), (("10.1.2.3", 0), b"")]
)
async def test_a_client_that_the_server_has_found_out(
    client: tuple[str, int], value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a server has put the client in the proxy's place itself, no client is taken for a forgotten proxy."""
    await call(ProxyMiddleware(Echo()), http_scope(headers=[(FOR, value)], client=client))
    assert caplog.messages == []


async def test_one_answer_for_all_layers() -> None:
    """Limits, host checks, the log and the app go by the same client, scheme and host."""
    app, lines = Echo(), list[bytes]()
    settings = GuardSettings(
        proxy=ProxySettings(trusted=(PROXY,), header="forwarded", host=True),
        hosts=HostsSettings(allowed=("api.example.com",), https_redirect=True),
        rate=RateSettings(limit="1/hour by ip"),
    )
    guard = Guard(app, settings)
    log = next(layer for layer in guard.layers if isinstance(layer, AccessLogMiddleware))
    log.write = lines.append

    async def ask(forwarded: bytes) -> int:
        return (await get(guard, headers=[(b"forwarded", forwarded)])).status

    assert await ask(b"for=198.51.100.7;proto=https;host=api.example.com") == 200
    assert await ask(b"for=198.51.100.7;proto=https;host=api.example.com") == 429
    assert await ask(b"for=198.51.100.8;proto=https;host=api.example.com") == 200
    assert await ask(b"for=198.51.100.8;proto=http;host=api.example.com") == 308
    assert await ask(b"for=198.51.100.8;proto=https;host=evil.example") == 400
    assert await ask(b"for=unknown;proto=https;host=api.example.com") == 200
    records = [orjson.loads(line) for line in lines]
    assert [record["client.address"] for record in records] == [
        *["198.51.100.7"] * 2, *["198.51.100.8"] * 3, PROXY,
    ]  # fmt: skip
    assert [record["url.scheme"] for record in records] == ["https", "https", "https", "http", "https", "https"]
    assert [record.get("asgi_guard.client_doubt") for record in records] == [None] * 5 + ["unreadable"]
    assert app.scopes[0]["client"] == ("198.51.100.7", 0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hops": -1}, {"hops"}),
        ({"hops": 17, "trusted": "everyone", "host": True}, {"hops", "trusted"}),
        ({"host": True}, {"host"}),
    ],
)
def test_bad_options(options: dict[str, Any], named: set[str]) -> None:
    """What cannot be used is refused at construction, all of it at once."""
    with pytest.raises(ConfigError) as caught:
        ProxyMiddleware(Echo(), **options)
    assert {problem.name for problem in caught.value.problems} == named


@pytest.mark.parametrize(
    ("options", "peer", "headers", "granted"),
    [
        ({}, ("10.0.0.5", 5000), [], True),
        ({}, ("10.0.0.5", 5000), [(FOR, b"198.51.100.7")], False),
        ({}, ("10.0.0.5", 5000), [(b"x-real-ip", b"198.51.100.7")], False),
        ({}, ("10.0.0.5", 5000), [(FOR, b"10.0.0.5")], False),
        ({}, ("10.0.0.5", 0), [(FOR, b"10.0.0.5")], True),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [], True),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(FOR, b"198.51.100.7")], False),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(FOR, b"10.0.0.9")], True),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(b"x-real-ip", b"198.51.100.7")], False),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(b"forwarded", b"for=198.51.100.7")], False),
        ({"trusted": ("10.0.0.5",), "header": "forwarded"}, ("10.0.0.5", 5000), [(FOR, b"198.51.100.7")], False),
        ({"hops": 1}, ("10.0.0.5", 5000), [(b"x-real-ip", b"198.51.100.7")], False),
        ({}, ("10.0.0.5", 5000), [(b"via", b"1.1 front")], False),
        ({}, ("10.0.0.5", 5000), [(b"x-forwarded-host", b"api.example")], False),
        ({}, ("10.0.0.5", 5000), [(b"cf-connecting-ip", b"198.51.100.7")], False),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(b"x-forwarded-proto", b"https")], False),
        ({"trusted": ("10.0.0.5",)}, ("10.0.0.5", 5000), [(b"via", b"1.1 front"), (FOR, b"10.0.0.9")], True),
        ({}, ("10.0.0.5", 0), [(b"via", b"1.1 front")], True),
    ],
)
async def test_what_is_granted_to_an_address(
    options: dict[str, Any], peer: tuple[str, int], headers: list[Header], granted: bool
) -> None:
    """What is granted to a network is nobody's whom a proxy in it forwards for without naming them as is said."""
    settings = GuardSettings(
        proxy=ProxySettings(**options),
        rate=RateSettings(limit="1/day by ip", exempt=("10.0.0.0/8",)),
        metrics=MetricsSettings(path="/metrics", allow=("10.0.0.0/8",)),
        health=HealthSettings(details=("10.0.0.0/8",)),
        log=LogSettings(format="off"),
    )

    async def well() -> None:
        """Find nothing wrong."""

    guard = Guard(Echo(), settings, checks={"database": well})
    statuses = [(await get(guard, client=peer, headers=headers)).status for _ in range(2)]
    assert statuses == [200, 200 if granted else 429]
    assert (b"# HELP" in (await get(guard, "/metrics", client=peer, headers=headers)).body) is granted
    assert (b"database" in (await get(guard, "/health/ready", client=peer, headers=headers)).body) is granted


async def test_a_client_that_is_not_named_as_is_said_is_in_doubt() -> None:
    """A trusted proxy that names its client by another header, or not at all, has that told in the log."""
    lines: list[bytes] = []
    logged = AccessLogMiddleware(Echo(), write=lines.append)
    await get(ProxyMiddleware(logged, trusted=PROXY), headers=[(b"x-real-ip", b"198.51.100.7")])
    unreadable = [(FOR, b"?"), (b"x-real-ip", b"198.51.100.7")]
    await get(ProxyMiddleware(logged, trusted=PROXY), headers=unreadable)
    await get(ProxyMiddleware(logged, trusted=PROXY), headers=[(b"x-forwarded-proto", b"https")])
    await get(ProxyMiddleware(logged, trusted=PROXY), headers=[(b"cf-connecting-ip", b"198.51.100.7")])
    doubts = [orjson.loads(line)["asgi_guard.client_doubt"] for line in lines]
    assert doubts == ["other_header", "unreadable", "unnamed", "other_header"]
