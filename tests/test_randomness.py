"""Random digits that nobody else is given."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from asgi_guard.randomness import DIGITS, PIECES, random_digits


def test_digits() -> None:
    """Each piece is 32 hexadecimal digits, beyond the end of the stock too, and none comes twice."""
    pieces = [random_digits() for _ in range(3 * PIECES)]
    assert {len(piece) for piece in pieces} == {DIGITS}
    assert all(int(piece, 16) >= 0 for piece in pieces)
    assert len(set(pieces)) == len(pieces)


def test_threads() -> None:
    """Threads never get the same piece."""
    taken: list[list[str]] = [[] for _ in range(4)]

    def take(into: list[str]) -> None:
        into += [random_digits() for _ in range(5 * PIECES)]

    threads = [threading.Thread(target=take, args=(each,)) for each in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pieces = [piece for each in taken for piece in each]
    assert len(set(pieces)) == len(pieces) == 4 * 5 * PIECES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forks() -> None:
    """A process that is forked off does not go on with its parent's stock."""
    program = (
        "import os\n"
        "from asgi_guard.randomness import random_digits\n"
        "random_digits()\n"
        "child = os.fork()\n"
        "os.write(1, (random_digits() + '\\n').encode())\n"
        "if child: os.waitpid(child, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    one, other = done.stdout.split()
    assert one != other
