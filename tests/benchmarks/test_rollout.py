"""The benchmark of rolling updates: what it counts as a failure, its tables, and one update for real."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from benchmarks.figures import Suite
from benchmarks.rollout import fronts, run
from benchmarks.rollout.load import Load
from benchmarks.rollout.processes import StuckError, free_ports, processes, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 20.0
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42"


@contextmanager
def answering(answer: bytes | None, times: int) -> Iterator[int]:
    """A server that gives this answer, so often in a connection, and then closes it; None keeps silent."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                for _ in range(times):
                    if not connection.recv(4096):
                        break
                    if answer is None:
                        over.wait(PATIENCE)
                    else:
                        connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener], daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\ncont", "truncated"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n42", "truncated"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "status"),
        (None, "timeout"),
    ],
)
def test_failures_are_told_apart(answer: bytes | None, kind: str) -> None:
    """Each way to fail has its name."""
    with answering(answer, 1) as port, Load(port, 1, patience=0.3 if answer is None else PATIENCE) as load:
        wait_for("a failure", lambda: bool(load.counts.failed))
    assert set(load.counts.failed) == {kind}
    assert load.counts.answered == 0


def test_nobody_listens() -> None:
    """A connection that nobody takes is a failure of its own."""
    with Load(free_ports(1)[0], 1) as load:
        wait_for("a failure", lambda: bool(load.counts.failed))
    assert set(load.counts.failed) == {"refused"}


def test_a_connection_that_is_said_to_close_is_no_failure() -> None:
    """Clients connect anew after `Connection: close`, and count nothing."""
    closing = GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with answering(closing, 1) as port, Load(port, 2) as load:
        wait_for("answers", lambda: load.counts.answered >= 20)
    assert not load.counts.failed
    assert load.counts.pids == {42}


def test_tables() -> None:
    """The tables have failed / answered by front and side, the claim beside it, and the failures by kind."""
    found = {"alone": run.Outcome(900, {"reset": 2, "status": 1}, 3), "guarded": run.Outcome(1234, {}, 3)}
    names = {side: f"x: {run.NAMES[side]}" for side in found}  # type: ignore[index]
    figures = [figure for side, one in found.items() for figure in run._figures("x", side, one)]  # type: ignore[arg-type]
    details = {names[side]: {"rolls": one.rolls, **one.failed} for side, one in found.items()}
    suite = Suite("rollout", figures, details=details)
    counted, kinds = run.sheets(suite)
    assert counted.rows == [["x", "3 / 900", "0 / 1,234"]]
    assert run.CLAIM in counted.caption
    assert kinds.rows[0] == [names["alone"], "3", "", "2", "", "1", ""]
    assert run.lost(suite) == []


@pytest.mark.parametrize("outcome", [run.Outcome(1000, {"reset": 1}, 1), run.Outcome(0, {}, 1)])
def test_what_is_lost_is_told(outcome: run.Outcome) -> None:
    """One failure, or no answer at all, is a loss of the guarded side."""
    assert run.lost(Suite("rollout", run._figures("x", "guarded", outcome))) == ["x"]
    assert run.lost(Suite("rollout", run._figures("x", "alone", outcome))) == []


def test_a_front_that_is_not_here_is_skipped() -> None:
    """What is missing is named, with how to install it."""
    front = fronts.Front("x", ("no-such-program", "uvicorn"), "apt-get install x", fronts._nginx)
    suite = run.measure(run.CHECK, lambda name, seconds: None, [front])
    assert suite.skipped == {"x": "no-such-program missing: apt-get install x"}
    assert suite.figures == []


def test_haproxys_configuration() -> None:
    """The sides with a readiness probe are asked by it, and every replica has its line."""
    guarded = fronts.haproxy_config("tcp", "guarded", 1, [2, 3])
    assert "option httpchk GET /health/ready" in guarded
    assert "server r1 127.0.0.1:3 check" in guarded
    assert "httpchk" not in fronts.haproxy_config("tcp", "alone", 1, [2, 3])


def test_processes_are_gone(tmp_path: Path) -> None:
    """Whatever happens within, no process is left, and what they wrote is told."""
    started = []

    def stuck() -> None:
        with processes(tmp_path) as running:
            started.append(running.python("http.server", "0", "--bind", "127.0.0.1"))
            (tmp_path / "errors").write_text("heard")
            wait_for("never", lambda: False, 0)

    with pytest.raises(StuckError, match=r"not in 0 s: never\n[\s\S]*heard"):
        stuck()
    assert started[0].returncode is not None


@pytest.mark.long
def test_workers_are_replaced_without_a_failure() -> None:
    """A real SIGHUP to real workers, under load: all are new, and every request was answered."""
    (front,) = [each for each in fronts.FRONTS if each.name.startswith("uvicorn")]
    began = time.monotonic()
    found = run.outcome(front, "guarded", run.Budget(clients=4, rolls=1, requests=0, seconds=0, warm=0.1))
    assert found.failed == {}
    assert found.answered > 0
    assert found.rolls == 1
    assert time.monotonic() - began >= fronts.WORKERS * fronts.DRAIN_SECONDS
