"""Watches what the package emits during every test, for the tokens that the test used.

Watched are log messages with their tracebacks, access-log records, bodies and headers of the guard's own answers, and
the texts of errors about tokens. A part of a token in any of them fails the test.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asgi_guard.chain.response import Response
from asgi_guard.errors import TokenError
from asgi_guard.policy.log_record import RECORDS
from asgi_guard.testing import LocalIssuer, ProofKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import Header
    from asgi_guard.policy.answer import Answer
    from asgi_guard.policy.log_entry import Entry

FORMATTER = logging.Formatter("%(message)s")
LENGTH = 20
"""Characters of a token's part that nothing else holds by chance."""


class Watch(logging.Handler):
    """What was issued and what was emitted since it was cleared."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.issued: set[str] = set()
        self.emitted: list[str] = []

    def clear(self) -> None:
        self.issued.clear()
        self.emitted.clear()

    def emit(self, record: logging.LogRecord) -> None:
        self.emitted.append(FORMATTER.format(record))

    def note(self, *emitted: object) -> None:
        self.emitted += map(str, emitted)

    def leaked(self) -> list[str]:
        """What was emitted that holds a part of a token: the payload is what nobody may read, the rest lets one in."""
        if not self.issued or not self.emitted:
            return []
        parts = {part[:LENGTH] for token in self.issued for part in token.split(".")[1:] if len(part) >= LENGTH}
        return [text for text in self.emitted if any(part in text for part in parts)]


WATCH = Watch()


def install() -> None:
    """Watch from now on."""
    logging.getLogger("asgi_guard").addHandler(WATCH)
    token, proof, answer = LocalIssuer.token, ProofKey.proof, Response.answer
    error = TokenError.__init__

    def issue(self: LocalIssuer, *args: Any, **options: Any) -> str:
        issued = token(self, *args, **options)
        WATCH.issued.add(issued)
        return issued

    def prove(self: ProofKey, *args: Any, **options: Any) -> str:
        proven = proof(self, *args, **options)
        WATCH.issued.add(proven)
        return proven

    async def send(self: Response, answered: Answer) -> None:
        headers: tuple[Header, ...] = answered.headers
        WATCH.note(answered.body.decode("utf-8", "replace"), headers)
        await answer(self, answered)

    def watched(record: Callable[[Entry], dict[str, Any]]) -> Callable[[Entry], dict[str, Any]]:
        def write(entry: Entry) -> dict[str, Any]:
            written = record(entry)
            WATCH.note(written)
            return written

        return write

    def refuse(self: TokenError, reason: str, detail: str) -> None:
        WATCH.note(reason, detail)
        error(self, reason, detail)

    RECORDS.update({schema: watched(record) for schema, record in RECORDS.items()})
    for owner, name, instead in (
        (LocalIssuer, "token", issue),
        (ProofKey, "proof", prove),
        (Response, "answer", send),
        (TokenError, "__init__", refuse),
    ):
        setattr(owner, name, instead)
