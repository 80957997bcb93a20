"""The benchmark of whole requests: its servers serve, its loads load, and its figures are what they say they are."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace

import httpx
import pytest

from asgi_guard import Guard
from asgi_guard.testing import LocalIssuer
from benchmarks import peers, subjects
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.layers import around
from benchmarks.limits.outages import silent
from benchmarks.server import load, process, run, stack, tables
from benchmarks.server.serve import WITHOUT_STORE, Served, build, guards_lines
from benchmarks.sheet import spread
from tests.asgi import call
from tests.stores.server import Server

BRIEF = run.Budget(rounds=2, seconds=0.2, connections=2)


@pytest.mark.long
def test_the_guard_and_the_bare_app_are_measured_with_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run gives a figure for each stack, tells how it was made, and leaves the process its cores."""
    monkeypatch.setattr(run, "tool", lambda: "Python")
    cores = os.sched_getaffinity(0)
    setting = run.Setting("raw, Redis", "raw", redis=True, stacks=("bare", "guard"), asked=0.5)

    suite = run.measure(None, BRIEF, lambda name, seconds: None, [setting])

    assert suite.names(1, "raw, Redis") == ["bare", "guard"]
    (asked,) = [figure for figure in suite.figures if figure.asked is not None]
    assert asked.of == ("raw, Redis", "guard", tables.RATIO)
    assert 0 < asked.value.low <= asked.value.median <= asked.value.high
    cpu = suite.find("raw, Redis", "bare", tables.CPU)
    assert cpu is not None
    assert 0 < cpu.median < 1e5
    assert os.sched_getaffinity(0) == cores
    (sheet, _) = tables.sheets(suite)
    assert [row[0] for row in sheet.rows] == ["the app alone", "asgi-guard"]
    assert suite.method["load"] == "Python, 2 connections"
    assert "uvloop" in suite.method["packages"]
    assert re.match(
        r"\d+ of [\d,]+ requests to asgi-guard in raw, Redis had no answer of the store within 50 ms",
        suite.method["too slow a store"],
    )


@pytest.mark.parametrize(
    ("stack", "redis"),
    [*((name, redis) for redis in (False, True) for name in run.STACKS[1:]), (run.ONE_CLIENT, True)],
)
async def test_every_stack_serves_the_same_request_and_refuses_a_token_that_is_none(
    stack: str, redis: bool, server: Server
) -> None:
    """With the token each answers as the app does, and marks the response; nonsense none lets in."""
    if absent := peers.absence(stack):
        pytest.skip(absent)
    with LocalIssuer().serve() as issuer:
        app = build(Served("fastapi", stack, server.url if redis else None, issuer.url, issuer.audience, None))
        served = await call(app, subjects.request(issuer.token()))
        refused = await call(app, subjects.request("nonsense"))
        if isinstance(app, Guard) and app.store is not None:
            await app.store.aclose()

    assert (served.status, served.body) == (200, b'{"item":42,"page":2}')
    assert {"x-request-id", "access-control-allow-origin", "x-content-type-options"} <= set(served.headers)
    assert refused.status == 401


@pytest.mark.parametrize("app", ["raw", "fastapi"])
async def test_the_headers_alone_are_as_many_and_as_long_as_the_guards(app: str) -> None:
    """What is sent for nothing is what the guard sends, to the byte."""
    if absent := subjects.absence(app):
        pytest.skip(absent)
    with LocalIssuer().serve() as issuer:
        served = Served(app, "bare", None, issuer.url, issuer.audience, None)
        made = [
            build(served),
            build(replace(served, stack="headers"), await guards_lines(app)),
            build(replace(served, stack="guard")),
        ]
        scope = subjects.request(issuer.token())
        bare, alone, guarded = [(await call(each, dict(scope))).starts[0]["headers"] for each in made]
    assert len(alone) == len(guarded) > len(bare) + 10
    assert sorted(name for name, _ in alone) == sorted(name for name, _ in guarded)
    assert sum(len(name) + len(value) for name, value in alone) == sum(
        len(name) + len(value) for name, value in guarded
    )


def test_what_stands_before_identity_for_limits_is_part_of_them() -> None:
    """The stack's steps are the layers of the table; clients over a limit are looked for once RateLimit is there."""
    guard = around.guard(subjects.raw, LocalIssuer(algorithm="ES256"))
    found = around.stops(guard.layers)
    alone = [name.partition(" ")[0] for name in around.around(subjects.raw, LocalIssuer(algorithm="ES256"))]
    assert [*found] == [name for name in alone if name in found]
    assert len(found) == len(alone) - len((around.BARE, around.IDLE, around.GUARD))
    assert [len(below) for below in found.values()] == [*range(1, len(found) - 1), len(found), len(found) + 1]
    assert found["Access"] == [*guard.layers]


async def test_a_server_may_have_some_layers_only() -> None:
    """The first of the guard's layers mark less than all of them."""
    with LocalIssuer().serve() as issuer:
        served = Served("raw", "layers", None, issuer.url, issuer.audience, None)
        scope = subjects.request(issuer.token())
        none, some, every = [
            len((await call(build(replace(served, last=last)), dict(scope))).starts[0]["headers"])
            for last in ("", "Host", "Access")
        ]
    assert none < some < every


@pytest.mark.long
def test_layers_inside_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has what it adds, and the table the interval of that."""
    monkeypatch.setattr(run, "tool", lambda: "Python")
    monkeypatch.setattr(stack, "FEW", {"raw": (around.IDLE, "Health")})
    monkeypatch.setattr(stack, "APPS", {"raw": "a raw ASGI app"})

    suite = stack.measure(BRIEF, lambda name, seconds: None)

    assert suite.names(1, "raw") == ["bare", stack.LINES, around.IDLE, "Health"]
    (sheet,) = stack.sheets(suite)
    added = [suite.find("raw", name, stack.ADDS) for name in (stack.LINES, around.IDLE, "Health")]
    assert None not in added
    assert [row[-2] for row in sheet.rows] == [*map(spread, added)]


def test_what_may_be_nothing_is_marked() -> None:
    """A layer whose interval holds 0 is told to be one that may add nothing; the bare app stands below the table."""
    of = (("bare", tables.CPU, 300.0, 9.0), ("Health", stack.ADDS, 5.0, 9.0), ("Access", stack.ADDS, 90.0, 9.0))
    figures = [Figure(("raw", name, what), "us", Interval(at, at - wide, at + wide, 15)) for name, what, at, wide in of]
    (sheet,) = stack.sheets(Suite("stack", figures))
    assert sheet.rows == [["Health", "5.00", "-4.00 to 14.0", stack.NOTHING], ["Access", "90.0", "81.0 to 99.0", ""]]
    assert "The bare app takes 300 us" in sheet.caption
    assert "the median of 15" in sheet.caption


@pytest.mark.long
def test_requests_without_their_store_are_served_and_counted() -> None:
    """Where nobody answers for the store in a user's default time, that is told when the server has ended."""
    with silent() as url, LocalIssuer().serve() as issuer:
        served = Served("raw", "guard", url, issuer.url, issuer.audience, None)
        with process.serving(served, issuer.token()) as running:
            answers = [
                httpx.get(f"http://127.0.0.1:{running.port}", headers=subjects.headers(issuer.token()), trust_env=False)
                for _ in range(3)
            ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert running.without_store >= 4  # with what it was asked at first, until it answered in time


def test_a_server_that_does_not_answer_well_is_reported() -> None:
    """What is not served is not timed: a token of someone else is a 401, which is told."""
    with LocalIssuer().serve() as issuer:
        served = Served("raw", "guard", None, issuer.url, issuer.audience, None)
        with pytest.raises(process.UnfitError, match="guard around raw: 401"), process.serving(served, "nonsense"):
            pass


LATE = """
import json, sys, time, uvicorn
from benchmarks.server import serve
run = uvicorn.Server.run
uvicorn.Server.run = lambda *arguments: (time.sleep(0.5), run(*arguments))
serve.main(serve.Served(**json.loads(sys.argv[1])), int(sys.argv[2]))
"""


def test_a_server_ends_with_its_input_also_where_that_ends_before_it_has_begun() -> None:
    """Who started it may be gone while it starts: it ends by itself, and has said its last line."""
    served = Served("raw", "bare", None, "", "", None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        ran = subprocess.run(
            [sys.executable, "-c", LATE, served.to_json(), str(descriptor)], pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    assert ran.stderr == f"{WITHOUT_STORE}0\n"


STAYS = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[-1]))
while True:
    with listener.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
"""


@pytest.mark.parametrize(("error", "patience"), [(SystemExit, 60.0), (subprocess.TimeoutExpired, 0.2)])
def test_a_server_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], patience: float
) -> None:
    """At once where a run is broken off, whose error is kept, and else after a while, which is told."""

    def serve() -> None:
        served = Served("raw", "bare", None, "", "", None)
        with process.serving(served, "token", (sys.executable, "-c", STAYS)) as running:
            pids.append(running.pid)
            monkeypatch.setattr(process, "PATIENCE", patience)
            if error is SystemExit:
                sys.exit(143)

    pids: list[int] = []
    began = time.monotonic()
    with pytest.raises(error):
        serve()
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_settings_whose_app_is_not_here_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole requests, layers inside a server and counts, those around FastAPI are named."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr(run, "SETTINGS", ())
    suite = run.measure(
        None, run.BRIEF, lambda *_: None, [run.Setting("it", "fastapi", redis=False, stacks=("bare",), asked=1)]
    )
    assert suite.skipped["it"] == "fastapi not installed"
    monkeypatch.setattr(stack, "APPS", {"fastapi": "FastAPI"})
    assert stack.measure(BRIEF, lambda *_: None).skipped == {"FastAPI": "fastapi not installed"}
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert stack.measure(BRIEF, lambda *_: None).skipped == {"servers": "uvloop not installed"}


def test_the_cpu_time_of_a_process_is_its_own() -> None:
    """The clock of another process, asked by its id, is the one that it reads itself."""
    before = time.process_time()
    found = process.cpu_seconds(os.getpid())
    assert before <= found <= time.process_time()


def test_the_output_of_wrk_is_read() -> None:
    """Its script's line has requests, microseconds, failures and latencies."""
    found = load.read_wrk("Running 1s test\n\nFIGURES 1000 2000000 3 4000 5000 6000\n")
    assert found == load.Load(1000, 2.0, 3, 4.0, 5.0, 6.0)


def test_the_output_of_oha_is_read() -> None:
    """Its JSON has seconds, and errors, of which the requests that the end cut off are none."""
    said = {
        "summary": {"total": 2.0},
        "latencyPercentiles": {"p50": 0.004, "p95": 0.005, "p99": 0.006},
        "statusCodeDistribution": {"200": 990, "429": 10},
        "errorDistribution": {"aborted due to deadline": 32, "connection refused": 3},
    }
    assert load.read_oha(json.dumps(said)) == load.Load(1000, 2.0, 13, 4.0, 5.0, 6.0)
