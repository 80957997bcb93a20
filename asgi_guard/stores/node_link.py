"""One connection to one node of a cluster: one call of the script a slot, all in one write."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import AskError, ClusterDownError, NoScriptError, ResponseError, TryAgainError

from asgi_guard.stores.parts import slot_of
from asgi_guard.stores.server_link import SCRIPT, SCRIPT_SHA1, ServerLink
from asgi_guard.stores.wire import Question, encode, pack, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.stores.hosts import Address
    from asgi_guard.stores.wire import Unwritten

ASKING = pack(b"ASKING")
SLOT_ERRORS = (AskError, TryAgainError, ClusterDownError)
"""What a node answers that is well itself, but does not serve the slot, or not now. It has executed nothing."""


class Told(Question):
    """A question whose answer nobody waits for."""

    __slots__ = ()


class Asking(Question):
    """A question to the node that a slot is moving to, which serves it only to those who were sent there."""

    __slots__ = ()


class _Command(NamedTuple):
    """One call of the script.

    Attributes:
        places: of its questions, among those of the batch.
        arguments: of the script.
        asking: whether the node serves the slot only to those who were sent there.
    """

    places: list[int]
    arguments: list[bytes]
    asking: bool


class NodeLink(ServerLink):
    """One connection to one node.

    Args:
        client: whose connections it takes.
        clock: microseconds since the Unix epoch; None asks the server's.
        address: of the node.
        redirected: called when the node names another, with what it answered and the questions that it concerns.
    """

    def __init__(
        self,
        client: Redis,
        clock: Callable[[], int] | None,
        address: Address,
        redirected: Callable[[AskError, Sequence[Question]], None],
    ) -> None:
        super().__init__(client, clock)
        self._address = address
        self._redirected = redirected

    async def ask(self, questions: Sequence[Question]) -> Sequence[Verdict | Exception | Unwritten | None]:
        """Ask by one call of the script a slot, all in one write. What one slot meets is no matter of the others.

        A node that lets nothing be written keeps its connection: another would lead to the same one, and a replica does
        not say so here but names its master.
        """
        commands = self._commands(questions)
        answered, again = [], []
        for command, reply in zip(commands, await self._call((b"EVALSHA", SCRIPT_SHA1), commands), strict=True):
            # Neither was executed.
            if isinstance(reply, NoScriptError):
                again.append(command)
            elif isinstance(reply, TryAgainError) and len(command.places) > 1:
                # Of a slot on the move, some keys are here and some are not. Each may be asked about alone.
                again += [self._command([place], questions, asking=False) for place in command.places]
            else:
                answered.append((command, reply))
        if again:
            answered += zip(again, await self._call((b"EVAL", SCRIPT), again), strict=True)
        failures = [
            reply for _, reply in answered if isinstance(reply, Exception) and not isinstance(reply, SLOT_ERRORS)
        ]
        if len(failures) == len(answered):
            raise failures[0]
        results: list[Verdict | Exception | Unwritten | None] = [None] * len(questions)
        for command, reply in answered:
            concerned = [questions[place] for place in command.places]
            if isinstance(reply, AskError):
                reply.host = reply.host or self._address[0]  # an unnamed host is the one that was asked
                self._redirected(reply, concerned)
            if isinstance(reply, ResponseError):
                for place in command.places:
                    results[place] = reply
                continue
            for place, verdict in zip(command.places, read(reply, concerned), strict=True):
                results[place] = verdict
        return results

    def _commands(self, questions: Sequence[Question]) -> list[_Command]:
        slots: dict[int, list[int]] = {}
        for place, question in enumerate(questions):
            # Of a slot on the move, each is asked about alone.
            slots.setdefault(~place if isinstance(question, Asking) else slot_of(question), []).append(place)
        return [self._command(places, questions, asking=slot < 0) for slot, places in slots.items()]

    def _command(self, places: list[int], questions: Sequence[Question], *, asking: bool) -> _Command:
        now = 0 if self._clock is None else self._clock()
        return _Command(places, encode([questions[place] for place in places], now), asking)

    async def _call(
        self, script: tuple[bytes, bytes], commands: Sequence[_Command]
    ) -> list[bytes | list[bytes] | ResponseError]:
        """Run commands: their answers, or what the node refused them with."""
        words = []
        for command in commands:
            if command.asking:
                words.append(ASKING)
            words.append(pack(*script, *command.arguments))
        replies = iter(await self.call(words))
        answers = []
        for command in commands:
            allowed = next(replies) if command.asking else None
            answer = next(replies)
            answers.append(allowed if isinstance(allowed, ResponseError) else answer)
        return answers
