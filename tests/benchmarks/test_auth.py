"""The benchmark of tokens measures what it says, beside whoever is here."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING

import jwt
import pytest
from click.testing import CliRunner

from asgi_guard import IdentityMiddleware
from asgi_guard.errors import TokenError
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.__main__ import main
from benchmarks.auth import hostile, rotation, run, verifiers
from benchmarks.figures import Figure, Suite, read
from benchmarks.interval import Interval

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.testing import Algorithm


@pytest.mark.parametrize("algorithm", run.ALGORITHMS)
def test_who_is_compared_verifies(algorithm: Algorithm) -> None:
    """Each takes the good token, refuses every hostile one that names a key, and the bare signature is the token's."""
    issuer = LocalIssuer(algorithm=algorithm)
    token = issuer.token()
    assert verifiers.signature(issuer, token)() is None
    for verify in verifiers.verifiers(issuer).values():
        verify(token)
        for what, bad in hostile.tokens(issuer).items():
            if what == "an unknown key":
                continue
            run._refused(verify, bad)()  # raises where it is accepted


async def test_the_cooldown_is_told_as_it_is() -> None:
    """Both have the default that the caption tells; within it a key that was rotated in is refused.

    Without it, as where times are taken, that key is found.
    """
    default = inspect.signature(jwt.PyJWKClient).parameters["cooldown_duration"].default
    assert default == KeyTimes().cooldown == 30
    rotated = Figure(("rotation", rotation.FETCHES, run.OURS), "calls", Interval.of([0.0]))
    *_, sheet = run.sheets(Suite("auth", [rotated], {"rotation": "an issuer that is slow"}))
    assert sheet.caption.startswith("An issuer that is slow, without the cooldown of 30 s that both have by default")
    assert sheet.caption.endswith("within it: 0.00 by asgi-guard; a key that is rotated in is refused within it, too.")

    for times, refused in ((KeyTimes(), True), (KeyTimes(cooldown=0), False)):
        issuer = LocalIssuer(algorithm="ES256")
        app = IdentityMiddleware(subjects.raw, issuers=[issuer.accepted(times=times)])
        await app.startup()
        issuer.rotate(keep=True)
        with pytest.raises(TokenError) if refused else nullcontext():
            await app.tokens.verify(issuer.token().encode())
        await app.shutdown()


@pytest.mark.long
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, as short as can be, gives a figure to everyone, prints them all, and writes them down."""
    monkeypatch.setattr("benchmarks.suites._AUTH", {"quick": (0.0, 1)})
    path = tmp_path / "figures.json"
    ran = CliRunner().invoke(main, ["auth", "--quick", "--json", str(path)])

    assert ran.exit_code == 0, ran.output
    suite = read(path).suite("auth")
    assert suite is not None
    for who in (run.OURS, run.COLD, run.CACHED, verifiers.PYJWT, verifiers.SIGNATURE):
        assert who in ran.output
        assert {of[2] for of in (figure.of for figure in suite.figures) if of[:2] == ("token", who)} == {
            *run.ALGORITHMS
        }
    asked = [figure for figure in suite.figures if figure.asked is not None]
    assert [figure.of[1] for figure in asked] == [hostile.OVERSIZED]
    assert "the event loop stands still" in ran.output
    *_, rotated, _ = run.sheets(suite)
    assert rotated.title.endswith("in milliseconds")
    assert [row[0] for row in rotated.rows] == [*rotation.WHAT]  # and no counts among them
    assert "Fetches for 50 unknown keys within it: 0.00 by asgi-guard" in rotated.caption
    stalls = {
        figure.of[2]: figure.value.median for figure in suite.figures if figure.of[1] == "the event loop stands still"
    }
    waiting = {figure.of[1:] for figure in suite.figures if figure.waits == rotation.SLOW * 1000}
    assert waiting == {(what, who) for who, what in rotation.WAIT}
    longer = {figure.of[1:] for figure in suite.figures if figure.of[1] in rotation.WHAT and figure.value.median > 45}
    assert longer >= waiting
    assert stalls[verifiers.PYJWT] > rotation.SLOW * 1000 * 0.9  # it fetches in the loop's thread
