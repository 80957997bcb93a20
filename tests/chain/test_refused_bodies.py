"""The body of a request that the guard refuses: read within bounds, so that the refusal is not lost to a reset."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings
from asgi_guard.chain import response
from tests.asgi import Echo, http_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_guard.asgi import Header, Message

GUARD = Guard(Echo(), GuardSettings(auth=AuthSettings(api_keys=(APIKey("someone", "a" * 64),))))
LONG = (b"content-length", b"9000000000")


class Upload:
    """A client that sends a body in pieces and notes what happened in which order."""

    def __init__(self, pieces: Iterable[bytes], *, ends: str = "http.request") -> None:
        self.pieces = list(pieces)
        self.ends = ends
        self.events: list[str] = []

    async def receive(self) -> Message:
        self.events.append("receive")
        if not self.pieces:
            return {"type": self.ends}
        message: Message = {"type": "http.request", "body": self.pieces.pop(0)}
        return {**message, "more_body": True} if self.pieces else message  # which of the last may be left out

    async def send(self, message: Message) -> None:
        self.events.append(message["type"])


async def upload(client: Upload, *headers: Header, method: str = "POST", **members: str) -> list[str]:
    await GUARD(http_scope(method, "/", headers, **members), client.receive, client.send)
    return client.events


ANSWER = ["http.response.start", "http.response.body"]


async def test_a_refused_body_is_read_before_the_answer() -> None:
    """All of a body is read, and then the refusal is sent."""
    events = await upload(Upload([b"a", b"b", b"c"]), (b"content-length", b"3"))
    assert events == ["receive"] * 3 + ANSWER


async def test_a_chunked_body_is_read_too() -> None:
    """A body of unknown length is read as well."""
    assert await upload(Upload([b"a", b"b"]), (b"transfer-encoding", b"chunked")) == ["receive"] * 2 + ANSWER


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")], [LONG, (b"expect", b"100-continue")]])
async def test_what_is_not_coming_is_not_waited_for(headers: list[Header]) -> None:
    """Without a body, or where the client asked first whether to send one, nothing is read."""
    assert await upload(Upload([b"a"]), *headers) == ANSWER


@pytest.mark.parametrize(("method", "read"), [("POST", 2), ("PUT", 2), ("DELETE", 2), ("GET", 0), ("HEAD", 0)])
async def test_a_body_that_no_header_names(method: str, read: int) -> None:
    """From HTTP/2 on a body needs no header, so it is looked for, but with methods that send none."""
    answer = await upload(Upload([b"a", b"b"]), method=method, http_version="2")
    assert answer == ["receive"] * read + ANSWER
    assert await upload(Upload([b"a"]), (b"content-length", b"0"), method=method, http_version="2") == ANSWER


async def test_a_client_that_waits_for_the_answer_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no header names a body, one that does not begin to come is waited for but briefly."""
    monkeypatch.setattr(response, "MAX_SILENT_SECONDS", 0.01)

    class Silent(Upload):
        async def receive(self) -> Message:
            if not self.pieces:
                await asyncio.Event().wait()
            self.events.append("receive")
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}

    async with asyncio.timeout(response.MAX_DRAINING_SECONDS / 2):
        assert await upload(Silent([]), http_version="2") == ANSWER
    monkeypatch.setattr(response, "MAX_DRAINING_SECONDS", 0.05)
    assert await upload(Silent([b"a", b"b"]), http_version="2") == ["receive"] * 2 + ANSWER


async def test_a_body_that_no_header_names_and_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once such a body has begun to come, it is read to its end as any other, for as long as that may take."""
    monkeypatch.setattr(response, "MAX_SILENT_SECONDS", 0.05)

    class Slow(Upload):
        async def receive(self) -> Message:
            if self.events:
                await asyncio.sleep(0.03)
            return await super().receive()

    assert await upload(Slow([b"a"] * 4), http_version="2") == ["receive"] * 4 + ANSWER


async def test_an_endless_body_is_read_up_to_a_bound() -> None:
    """Reading stops when the bound is reached, and the refusal is sent."""
    piece = b"x" * 1024 * 1024
    events = await upload(Upload([piece] * 50), LONG)
    assert events == ["receive"] * (response.MAX_DRAINED_BYTES // len(piece)) + ANSWER


async def test_a_client_that_leaves_ends_the_reading() -> None:
    """A disconnect is the end of a body, whatever its length said."""
    assert await upload(Upload([], ends="http.disconnect"), LONG) == ["receive", *ANSWER]


async def test_a_slow_body_is_waited_for_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing gets its refusal when the time is over."""

    class Silent(Upload):
        async def receive(self) -> Message:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(response, "MAX_DRAINING_SECONDS", 0.01)
    assert await upload(Silent([]), LONG) == ANSWER


@pytest.mark.parametrize(("headers", "version"), [([LONG], "1.1"), ([], "2")])
async def test_a_body_that_trickles_in(headers: list[Header], version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is for all of a body: a client that sends a little now and then holds its request no longer by that."""

    class Trickling(Upload):
        async def receive(self) -> Message:
            await asyncio.sleep(0.02)
            return await super().receive()

    monkeypatch.setattr(response, "MAX_DRAINING_SECONDS", 0.3)
    client = Trickling([b"a"] * 100)
    events = await upload(client, *headers, http_version=version)
    assert events[-2:] == ANSWER
    assert len(client.pieces) > 50
