"""The Health layer: probes, checks and draining."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    Check,
    ConfigError,
    Guard,
    GuardSettings,
    HealthMiddleware,
    HealthSettings,
    ProxySettings,
    RequestIDMiddleware,
    StoreUnavailableError,
)
from asgi_guard.operations import readiness
from tests.asgi import Echo, Exchange, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send


async def fine() -> None:
    """A check that passes."""


async def failing() -> None:
    raise RuntimeError("a secret that no probe is told")


def state(exchange: Exchange) -> tuple[int, dict[str, Any]]:
    return exchange.status, json.loads(exchange.body)


async def probed(layer: ASGIApp, address: str | None = "127.0.0.1", **members: Any) -> Exchange:
    """Readiness, asked from this machine unless said."""
    return await get(layer, "/health/ready", client=None if address is None else (address, 1), **members)


async def test_live() -> None:
    """Liveness is 200, not to be cached, and the app is not asked."""
    app = Echo()
    exchange = await get(HealthMiddleware(app), "/health/live")
    assert state(exchange) == (200, {"status": "live"})
    assert exchange.headers["cache-control"] == "no-store"
    assert app.scopes == []


async def test_head() -> None:
    """A HEAD probe gets the same head, without a body."""
    exchange = await call(HealthMiddleware(Echo()), http_scope("HEAD", "/health/ready"))
    assert (exchange.status, exchange.body) == (200, b"")
    assert exchange.headers["content-length"] == str(len(b'{"status":"ready"}'))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/health/live"),
        ("OPTIONS", "/health/ready"),
        ("GET", "/health"),
        ("GET", "/health/live/"),
        ("GET", "/x/health/live"),
        ("GET", "\0"),
        ("GET", ""),
    ],
)
async def test_not_a_probe(method: str, path: str) -> None:
    """Other methods and paths are the app's."""
    app = Echo()
    await call(HealthMiddleware(app), http_scope(method, path))
    assert len(app.scopes) == 1


async def test_websocket_is_no_probe() -> None:
    """A WebSocket at a probe's path is the app's."""
    app = Echo()
    await call(HealthMiddleware(app), websocket_scope("/health/live"))
    assert len(app.scopes) == 1


async def test_off() -> None:
    """A path of None turns its probe off."""
    app = Echo()
    layer = HealthMiddleware(app, live_path=None, ready_path="/ready")
    assert (await get(layer, "/ready")).status == 200
    await get(layer, "/health/live")
    await get(HealthMiddleware(app, ready_path=None), "/health/ready")
    assert [scope["path"] for scope in app.scopes] == ["/health/live", "/health/ready"]


async def test_root_path() -> None:
    """Behind a root path, probes are found below it."""
    exchange = await get(HealthMiddleware(Echo()), "/api/health/live", root_path="/api")
    assert exchange.status == 200
    assert state(exchange)[1] == {"status": "live"}


async def test_ready_follows_the_start() -> None:
    """A process is not ready before the app's start-up is complete, and not after it began to shut down."""
    layer = HealthMiddleware(Echo())
    assert state(await get(layer, "/health/ready")) == (200, {"status": "ready"})
    await layer.startup()
    assert state(await get(layer, "/health/ready")) == (503, {"status": "starting"})
    assert (await get(layer, "/health/live")).status == 200
    layer.started()
    assert (await get(layer, "/health/ready")).status == 200
    await layer.shutdown()
    assert state(await get(layer, "/health/ready")) == (503, {"status": "draining"})
    assert (await get(layer, "/health/live")).status == 200


async def test_several_servers() -> None:
    """Where two servers of one process have it, one that starts or stops leaves readiness to the other."""
    layer = HealthMiddleware(Echo())
    await layer.startup()
    assert (await get(layer, "/health/ready")).status == 503
    layer.started()
    await layer.startup()
    assert (await get(layer, "/health/ready")).status == 200
    layer.started()
    await layer.shutdown()
    assert (await get(layer, "/health/ready")).status == 200
    await layer.shutdown()
    assert state(await get(layer, "/health/ready")) == (503, {"status": "draining"})


def test_a_server_that_never_stopped() -> None:
    """A start in an event loop that was closed without a stop counts no more."""
    layer = HealthMiddleware(Echo())
    asyncio.run(layer.startup())
    layer.started()

    async def serve() -> None:
        await layer.startup()
        assert (await get(layer, "/health/ready")).status == 503
        layer.started()
        await layer.shutdown()
        assert (await get(layer, "/health/ready")).status == 503

    asyncio.run(serve())


@pytest.mark.parametrize(
    ("checks", "status", "body"),
    [
        ([Check("a", fine)], 200, {"status": "ready", "checks": {"a": "ok"}}),
        ([Check("a", fine), Check("b", failing)], 503, {"status": "not ready", "checks": {"a": "ok", "b": "failed"}}),
        ([Check("b", failing, required=False)], 200, {"status": "ready", "checks": {"b": "failed"}}),
    ],
)
async def test_checks(checks: list[Check], status: int, body: dict[str, Any]) -> None:
    """A required check that fails makes a process not ready, another one is told, and no exception's text is."""
    assert state(await probed(HealthMiddleware(Echo(), checks=checks))) == (status, body)


async def test_hanging_check() -> None:
    """A check that does not come back has failed after its own time or that of all, and holds up no other."""
    checks = [Check("a", asyncio.Event().wait, timeout=0.01), Check("b", asyncio.Event().wait), Check("c", fine)]
    layer = HealthMiddleware(Echo(), checks=checks, check_timeout=0.02)
    told = {"a": "timed out", "b": "timed out", "c": "ok"}
    assert state(await probed(layer)) == (503, {"status": "not ready", "checks": told})


async def test_checks_are_asked_at_once() -> None:
    """No check waits for another to end: two that wait for each other both pass."""
    barrier = asyncio.Barrier(2)
    layer = HealthMiddleware(Echo(), checks=[Check("a", barrier.wait), Check("b", barrier.wait)], check_timeout=60)
    assert (await probed(layer)).status == 200


async def test_a_check_that_cannot_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline holds for a check that goes on when it is cancelled; it is not asked again until it has ended."""
    asked, go = 0, asyncio.Event()

    async def stubborn() -> None:
        nonlocal asked
        asked += 1
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    layer = HealthMiddleware(Echo(), checks=[Check("stubborn", stubborn)], check_timeout=0.01)
    assert [(await probed(layer)).status for _ in range(3)] == [503] * 3
    assert asked == 1
    go.set()
    while asked == 1:
        assert (await probed(layer)).status in (503, 200)
    assert state(await probed(layer))[1]["checks"] == {"stubborn": "ok"}


@pytest.mark.parametrize(("own", "others", "passes"), [(0.01, 3600, False), (60, 0.01, True)])
async def test_a_deadline_of_its_own(own: float, others: float, passes: bool) -> None:
    """A check's own deadline holds in the place of that for all, shorter or longer."""

    async def slow() -> None:
        await asyncio.sleep(0.1 if passes else 3600)

    layer = HealthMiddleware(Echo(), checks=[Check("a", slow, timeout=own)], check_timeout=others)
    async with asyncio.timeout(60):
        assert state(await probed(layer))[1]["checks"] == {"a": "ok" if passes else "timed out"}


async def test_a_check_that_raises_when_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A check that raises at its deadline is told as late, and what it raised is no line of the log."""

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("hunter2")

    layer = HealthMiddleware(Echo(), checks=[Check("late", late)], check_timeout=0.01)
    assert state(await probed(layer)) == (503, {"status": "not ready", "checks": {"late": "timed out"}})
    for _ in range(3):
        await asyncio.sleep(0)
    del layer
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == ["readiness: not ready: late timed out"]


async def test_a_check_that_is_cancelled_from_within() -> None:
    """A check that ends in a cancellation of its own has failed, and the probe is answered."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    layer = HealthMiddleware(Echo(), checks=[Check("a", cancelled)])
    assert state(await probed(layer)) == (503, {"status": "not ready", "checks": {"a": "failed"}})


async def test_checks_end_with_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is under way when the app has shut down is cancelled; who waits for it is told not to come."""
    layer = HealthMiddleware(Echo(), checks=[Check("slow", asyncio.Event().wait)], check_timeout=3600)
    asking = asyncio.create_task(probed(layer))
    for _ in range(5):
        await asyncio.sleep(0)
    await layer.shutdown()
    assert state(await asking) == (503, {"status": "not ready"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("10.1.2.3", True), ("10.1.2.3:99", True), ("::ffff:10.1.2.3", True), ("2001:db8::1", True),
        ("127.0.0.1", False), ("203.0.113.9", False), ("", False), ("testclient", False), (None, False),
    ],
)  # fmt: skip
async def test_details_are_for_the_allowed(address: str | None, told: bool) -> None:
    """Which check failed is told to allowed addresses; all others get the bare status, with the same code."""
    layer = HealthMiddleware(Echo(), checks=[Check("a", failing)], details="10.0.0.0/8, 2001:db8::1")
    body = {"status": "not ready", **({"checks": {"a": "failed"}} if told else {})}
    assert state(await probed(layer, address)) == (503, body)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("header", [None, b"forwarded", b"x-forwarded-for", b"x-real-ip"])
async def test_details_are_for_this_machine_unless_said(address: str, header: bytes | None) -> None:
    """Whoever asks from here is told, unless it is a proxy that asks for somebody, by whichever header it says so."""
    layer = HealthMiddleware(Echo(), checks=[Check("a", failing)])
    headers = [] if header is None else [(header, b"203.0.113.9")]
    body = {"status": "not ready", **({"checks": {"a": "failed"}} if header is None else {})}
    assert state(await probed(layer, address, headers=headers)) == (503, body)


LANGUAGES = (b"accept-language", b"")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([(b"origin", b"null")], False),
        ([(b"origin", b"http://a.example"), (b"sec-fetch-site", b"cross-site")], False),
        ([(b"sec-fetch-site", b"same-origin"), (b"host", b"localhost:8000")], False),
        ([(b"sec-fetch-site", b"none"), LANGUAGES, (b"host", b"a.example")], True),
        ([LANGUAGES, (b"host", b"evil.example:8000")], False),
        ([LANGUAGES, (b"host", b"127.0.0.1.evil.example")], False),
        ([LANGUAGES], False),
        ([LANGUAGES, (b"host", b"localhost:8000")], True),
        ([LANGUAGES, (b"host", b"10.0.0.7:8000")], True),
        ([LANGUAGES, (b"host", b"[2001:db8::7]:8000")], True),
        ([(b"host", b"app.internal:8000")], True),
    ],
)
async def test_details_are_for_no_page(headers: list[tuple[bytes, bytes]], told: bool) -> None:
    """No page reads the details through a browser on this machine, whichever name it has found to lead here."""
    layer = HealthMiddleware(Echo(), checks=[Check("a", failing)])
    exchange = await probed(layer, "127.0.0.1", headers=headers)
    assert state(exchange) == (503, {"status": "not ready", **({"checks": {"a": "failed"}} if told else {})})


@pytest.mark.parametrize(
    ("proxies", "forwarded", "told"),
    [(0, "10.0.0.1", False), (0, "203.0.113.9", False), (0, None, True), (1, "nonsense", False)],
)
async def test_details_behind_a_proxy(proxies: int, forwarded: str | None, told: bool) -> None:
    """Behind a proxy it is the client's address that counts; where none is named but proxies, nobody's."""
    settings = GuardSettings(
        proxy=ProxySettings(trusted=("10.0.0.0/8",), hops=proxies), health=HealthSettings(details=("10.0.0.0/8",))
    )
    guard = Guard(Echo(), settings, checks=[Check("db", failing, required=False)])
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    exchange = await get(guard, "/health/ready", headers, client=("10.9.9.9", 1))
    assert state(exchange) == (200, {"status": "ready", **({"checks": {"db": "failed"}} if told else {})})


async def test_details_are_for_the_client_that_asked_though_another_head_is_sent_meanwhile() -> None:
    """Whom readiness tells its details is settled by the request that it was handed, whatever was sent around it."""
    checked = asyncio.Event()
    layer = HealthMiddleware(Echo(), checks={"a": checked.wait})
    bodies: list[bytes] = []

    async def note(message: Message) -> None:
        bodies.append(message.get("body", b""))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        relayed = [*scope["headers"], (b"x-forwarded-for", b"203.0.113.9")]
        probe = {**scope, "path": "/health/ready", "raw_path": b"/health/ready", "headers": relayed}
        task = asyncio.create_task(layer(probe, receive, note))
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        checked.set()
        await task
        await send({"type": "http.response.body", "body": b""})

    await get(RequestIDMiddleware(app), client=("127.0.0.1", 1))
    assert json.loads(b"".join(bodies)) == {"status": "ready"}


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ({"store": fine}, "'store' is taken"),
        ({"keys of https://id.example.com": fine}, "'keys of https://id.example.com' is taken"),
        ([Check("a", fine), Check("a", fine)], "2 are called 'a'"),
    ],
)
def test_names_of_checks(checks: Any, message: str) -> None:
    """A name that says nothing of what failed, since two have it, is refused."""
    with pytest.raises(ConfigError, match=message):
        Guard(Echo(), GuardSettings(), checks=checks)


async def test_checks_by_their_names() -> None:
    """The layer by itself takes coroutine functions by name, as the guard does, and nothing that is no check."""
    assert state(await probed(HealthMiddleware(Echo(), checks={"a": failing})))[0] == 503
    with pytest.raises(ConfigError, match="of the type function: give Check"):
        HealthMiddleware(Echo(), checks=[fine])  # type: ignore[list-item]  # that is what is tested


def test_names_of_checks_of_the_layer_alone() -> None:
    """The layer by itself holds to that too: the second would be taken for the first, and never pass."""
    with pytest.raises(ConfigError, match="2 are called 'a'"):
        HealthMiddleware(Echo(), checks=[Check("a", fine), Check("a", fine)])


def test_no_time_for_a_check() -> None:
    """A check that has no time is refused, by itself and for all."""
    with pytest.raises(ValueError, match="'a' has 0 s"):
        Check("a", fine, timeout=0)
    with pytest.raises(ConfigError) as caught:
        HealthMiddleware(Echo(), check_timeout=0, details="10.0.0.0/8, here")
    assert [problem.name for problem in caught.value.problems] == ["details", "check_timeout"]


async def test_checks_are_shared(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However many probes come, at once or within a second, each check is asked once; a change is logged."""
    asked = 0
    broken = False

    async def probe() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if broken:
            raise OSError

    layer = HealthMiddleware(Echo(), checks=[Check("it", probe)])
    first = await asyncio.gather(*(get(layer, "/health/ready") for _ in range(20)))
    assert ({exchange.status for exchange in first}, asked) == ({200}, 1)
    broken = True
    assert ((await get(layer, "/health/ready")).status, asked) == (200, 1)
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    layer = HealthMiddleware(Echo(), checks=[Check("it", probe)])
    broken = False
    await get(layer, "/health/ready")
    broken = True
    with caplog.at_level(logging.WARNING, "asgi_guard"):
        assert (await get(layer, "/health/ready")).status == 503
    assert "not ready: it failed: OSError" in caplog.text
    assert asked == 3


async def test_every_change_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of each check that changes, whatever the others say and whether it is required; of nothing else."""
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    broken: dict[str, Exception] = {}

    def probe(name: str) -> Check:
        async def ask() -> None:
            if name in broken:
                raise broken[name]

        return Check(name, ask, required=name != "search")

    layer = HealthMiddleware(Echo(), checks=[probe(name) for name in ("search", "mq", "pg")])
    courses: list[tuple[dict[str, Exception], str | None]] = [
        ({}, None),
        ({"search": OSError()}, "ready: search failed: OSError"),
        ({"search": KeyError()}, None),
        ({"search": OSError(), "mq": OSError()}, "not ready: mq failed: OSError"),
        ({"pg": KeyError()}, "not ready: search ok, mq ok, pg failed: KeyError"),
        ({}, "ready: pg ok"),
        ({}, None),
    ]
    for course, said in courses:
        broken = course
        caplog.clear()
        await probed(layer)
        assert [record.getMessage() for record in caplog.records] == ([] if said is None else [f"readiness: {said}"])


async def test_a_check_that_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A plain function in the place of a coroutine function fails, and the log says what it is."""
    layer = HealthMiddleware(Echo(), checks=[Check("pg", lambda: 1)])  # type: ignore[arg-type,return-value]  # as an app may
    assert (await get(layer, "/health/ready")).status == 503
    assert "not ready: pg failed: its function is no coroutine function, and gave nothing to wait for" in caplog.text


@pytest.mark.parametrize(("given", "status"), [(False, 503), (None, 200), (True, 200), (0, 200)])
async def test_a_check_that_says_no(given: object, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A check that gives False has failed, as its writer will have meant; whatever else it gives is no answer."""

    async def probe() -> object:
        return given

    assert (await get(HealthMiddleware(Echo(), checks={"pg": probe}), "/health/ready")).status == status
    assert ("pg failed: it said False" in caplog.text) is (status == 503)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreUnavailableError("the store does not answer"), "pg failed: the store does not answer"),
        (OSError("postgres://app:hunter2@db"), "pg failed: OSError"),
    ],
)
async def test_what_is_told_of_an_error(error: Exception, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the guard itself found out is told in its words, and of anybody else's error no more than the type."""

    async def probe() -> None:
        raise error

    assert (await get(HealthMiddleware(Echo(), checks={"pg": probe}), "/health/ready")).status == 503
    assert [record.getMessage() for record in caplog.records] == [f"readiness: not ready: {said}"]


async def test_a_probe_that_leaves_does_not_cancel_the_checks() -> None:
    """A probe that is cancelled leaves the checks to the others that wait for them."""
    go = asyncio.Event()
    layer = HealthMiddleware(Echo(), checks=[Check("it", go.wait)])
    leaving = asyncio.create_task(get(layer, "/health/ready"))
    staying = asyncio.create_task(get(layer, "/health/ready"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    go.set()
    assert leaving.cancelled()
    assert (await staying).status == 200


@pytest.mark.parametrize("options", [{"live_path": "live"}, {"ready_path": "ready"}])
def test_bad_path(options: dict[str, str]) -> None:
    """A path that does not start with a slash is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        HealthMiddleware(Echo(), **{"live_path": "/l", "ready_path": "/r", **options})  # type: ignore[arg-type]  # mypy takes the values for those of every argument
    assert [problem.name for problem in caught.value.problems] == list(options)


@pytest.mark.parametrize(("check", "status", "why"), [(fine, 200, None), (failing, 503, "not_ready")])
async def test_a_probe_is_logged_as_a_refusal_only_where_it_fails(check: Any, status: int, why: str | None) -> None:
    """The line of a probe that passes gives no reason, since nothing was refused."""
    lines: list[bytes] = []
    layer = AccessLogMiddleware(HealthMiddleware(Echo(), checks=[Check("it", check)]), write=lines.append)
    assert (await get(layer, "/health/ready")).status == status
    assert json.loads(lines[0]).get("asgi_guard.reason") == why


def test_one_path_for_both() -> None:
    """One path for both probes is refused: it could only answer one of them."""
    with pytest.raises(ConfigError, match="ready_path"):
        HealthMiddleware(Echo(), live_path="/health", ready_path="/health")
