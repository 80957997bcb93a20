"""The watch for leaks sees what it is there to see."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from asgi_guard import Guard, GuardSettings, IdentityMiddleware
from asgi_guard.errors import TokenError
from tests.asgi import Echo, get
from tests.leaks import WATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.testing import LocalIssuer


@pytest.fixture
def seen() -> Iterator[None]:
    """Leaks that the test makes itself are its own."""
    yield
    WATCH.clear()


@pytest.mark.usefixtures("seen")
def test_a_token_in_the_log_is_seen(issuer: LocalIssuer) -> None:
    """A token in a log message, in an exception that is logged, or in an error about tokens is a leak."""
    logger = logging.getLogger("asgi_guard")
    for leak in ("message", "traceback", "error"):
        WATCH.clear()
        token = issuer.token()
        assert WATCH.leaked() == []
        if leak == "message":
            logger.warning("the token %s", token)
        elif leak == "error":
            TokenError("claim", token.split(".")[1])
        else:
            logger.error("it failed", exc_info=ValueError(token))
        assert len(WATCH.leaked()) == 1


async def test_answers_and_access_logs_are_watched(issuer: LocalIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    """What the guard answers and writes to its access log passes the watch, and holds no token."""
    guard = Guard(IdentityMiddleware(Echo(), issuers=[issuer.accepted()]), GuardSettings())
    token = issuer.token(aud="elsewhere")

    await get(guard, f"/{token[:10]}", [(b"authorization", f"Bearer {token}".encode()), (b"host", b"a b")])

    assert any("http.response.status_code" in text for text in WATCH.emitted)
    assert any("elsewhere" in text for text in WATCH.emitted)  # the operator is told why
    assert token not in capsys.readouterr().out
