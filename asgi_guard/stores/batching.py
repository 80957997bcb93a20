"""One call for all who wait: sent when the line is idle, else with those that gather behind the calls in flight.

No timer holds a request back: alone, it is sent at once. Under load, batches become as large as the moment asks, but
none of more than `MIN_BATCH` takes more than half (rounded up) of the requests there are, so that neither the server
nor this process waits for the other.

The order of decisions for a request:

1. The breaker is open: it fails at once, unless it is the one that probes: after a wait, or once there is a connection.
2. As many wait as may: it fails at once.
3. It waits, in order of arrival, for the line to be free, then for the answer. Whoever has waited for `timeout` fails,
   whatever stage it is at; what was not sent by then is never sent, and so never charged. Time in which other work held
   up the event loop is no time of the store's: what has arrived meanwhile is read first.

A server that lets nothing be written, since it is full or a replica, has failed whoever is to be counted. What it tells
of tokens holds all the same, and is asked also while the breaker is open.

A request whose caller is gone is dropped if it was not sent, and disturbs nobody if it was.

What is told, and not asked, nobody waits for. It may be what probes. Accounts of requests that are over are kept until
the store can be told: then they go along with the requests, `SLICE` after `SLICE`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.bucket import Verdict
from asgi_guard.stores.base import UNWATCHED
from asgi_guard.stores.outages import Outages
from asgi_guard.stores.owed import Account, Owed
from asgi_guard.stores.patience import Patience
from asgi_guard.stores.wire import Unwritten, look_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from typing import TypeAlias

    from asgi_guard.policy.breaker import Breaker
    from asgi_guard.stores.base import Watch
    from asgi_guard.stores.wire import Question

    _Waiter: TypeAlias = tuple[Question, asyncio.Future[Verdict] | None, Account | None]
    _Batch: TypeAlias = list[_Waiter]

logger = logging.getLogger("asgi_guard")

CONNECT_TIMEOUT = 1.0
"""Seconds that opening a connection may take. Requests do not wait for it longer than for anything else."""
MAX_CALLS = 4
"""Calls under way at once, one behind the other on the same connection: while the server decides one, the next is made
ready, and the answers of the last are read. More than two are of use where the network takes longer than the server."""
MIN_BATCH = 4
"""Requests that go together though they are more than half: a call costs the server as much as about so many."""
MAX_KEYS = 96
"""Keys of a batch that is full, so that a script holds the server for less than a millisecond. The request that
fills it may bring a few more: those of one request are never parted."""
MAX_WAITING = 4096
"""Requests that may wait at once. More could not be answered within their deadlines, and would cost memory."""
AGAIN = 0.5
"""Seconds after which accounts that were not told are tried again, where the breaker does not say when. Where many were
refused, it is as long for each slice of them."""
SLICE = 256
"""Accounts that are told late at once: so few that the requests behind them wait for milliseconds only."""
PARTING = 5.0
"""Seconds that a line that is let go has for all that waits."""
_UNWRITABLE = re.compile(r"(?:^|: -)(?:MISCONF|NOREPLICAS|OOM|READONLY) ", re.ASCII)
"""How a server begins that refuses to write for a while, and can be read."""
_PASSING = re.compile(r"(?:^|: -)(?:BUSY|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY) ", re.ASCII)
"""How a server begins that refuses for a while. It has charged nobody."""
NOT_ASKED = "the store has failed lately and is not asked"
TOO_MANY = "too many requests wait for the store already"


class Link(Protocol):
    """A way to one server."""

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""

    async def open(self) -> None:
        """Connect, where there is no connection."""

    async def ask(self, questions: Sequence[Question]) -> Sequence[Verdict | Exception | Unwritten | None]:
        """Ask all of these, in order; what it cannot answer it raises, or gives for the questions that it concerns.

        It may be called again before it has answered. What is asked later is decided later.
        """

    def close(self) -> None:
        """Drop the connection, since an answer may still come that nobody knows what to do with."""


class Line:
    """The requests that wait for one server, in one event loop.

    Args:
        link: the way to the server.
        breaker: when not to ask.
        timeout: seconds that a request waits at most.
        name: what the log calls the server.
        watch: is told how calls go.
    """

    def __init__(
        self,
        link: Link,
        breaker: Breaker,
        timeout: float,
        name: str = "the store",
        watch: Watch = UNWATCHED,
    ) -> None:
        self._watch = watch
        self._link = link
        self._breaker = breaker
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._outages = Outages(
            self._loop, f"{name} does not answer, so it is not asked for a while", f"{name} answers again"
        )
        self._waiting: deque[_Waiter] = deque()
        self._deadlines: deque[tuple[float, asyncio.Future[Verdict]]] = deque()
        self._bounds: dict[asyncio.Timeout, float] = {}  # when calls under way are to end, if nobody answers
        self._commands: dict[asyncio.Future[None], float] = {}  # when commands beside them are told to be late
        self._patience = Patience(self._loop, timeout, self._expire)
        self._calls: set[asyncio.Task[None]] = set()
        self._asked = 0  # how many requests the calls under way ask
        self._starting = False  # whether one of them has not sent anything yet
        self._epoch = 0  # how many connections have failed
        self._probing = False  # whether one asks while the breaker is open
        self._reads = False  # whether the server, when it failed last, only refused to write
        self._owed = Owed()
        self._late = 0  # how many of what was owed wait or are under way
        self._reminder: asyncio.TimerHandle | None = None  # of what is owed; there is one while anything is

    def _only_reads(self, question: Question) -> bool:
        """Whether a question can be answered though the breaker is open, since nothing is written for it."""
        return self._reads and not question.request.charges

    def check(self, question: Question, number: int) -> None:
        """See that a question may be asked at this moment, with others. An open breaker makes nobody the probe by that.

        Raises:
            StoreUnavailableError: it may not.
        """
        wait = 0.0 if self._only_reads(question) else self._breaker.retry_after(time.monotonic())
        if wait > 0:
            raise StoreUnavailableError(NOT_ASKED, wait, sent=False)
        if len(self._waiting) + number > MAX_WAITING:
            raise StoreUnavailableError(TOO_MANY, sent=False)

    def ask(self, question: Question, *, along: bool = False) -> asyncio.Future[Verdict]:
        """Ask; the future gets the answer, or the error: `StoreUnavailableError` where there is none.

        Who cancels it before the question is sent takes it back.

        Args:
            question: what is asked.
            along: whether the same request has asked something else at this moment, so that both are one probe.

        Raises:
            StoreUnavailableError: it is not asked.
        """
        is_open = self._breaker.is_open
        aside = is_open and self._only_reads(question)
        if is_open and not aside and not (along and self._probing):
            now = time.monotonic()
            if not self._breaker.allows(now):
                raise StoreUnavailableError(NOT_ASKED, self._breaker.retry_after(now), sent=False)
        if len(self._waiting) >= MAX_WAITING:
            raise StoreUnavailableError(TOO_MANY, sent=False)
        if not aside:
            self._probing = is_open
        future: asyncio.Future[Verdict] = self._loop.create_future()
        self._deadlines.append((self._patience.now() + self._timeout, future))
        self._patience.attend()
        self._enqueue(question, future)
        return future

    async def look_up(self, question: Question) -> bool | None:
        """Whether a token is revoked, for a question that may not be asked; None where that cannot be told either."""
        only = look_up(question)
        if only is None or not self._only_reads(only):
            return None
        try:
            return (await self.ask(only)).revoked
        except StoreUnavailableError:
            return None

    def tell(self, question: Question) -> None:
        """Ask without waiting for the answer.

        While the store is not asked, or too many wait, an account is kept for later, and anything else forgotten.
        """
        if len(self._waiting) >= MAX_WAITING or not self._breaker.allows(time.monotonic()):
            self._owe(question, None)
            return
        self._probing = self._breaker.is_open
        self._enqueue(question, None)

    def owe(self, account: Account) -> None:
        """Tell an account that another server could not be told."""
        self._owed.add(account)
        self._pay()
        self._be_reminded()

    def _owe(self, question: Question, account: Account | None, *, sent: bool = False, refused: bool = False) -> None:
        """Keep what nobody waits for, if it is an account: as it was kept before, where it was.

        Any other question is asked anew by whoever asked it.
        """
        if question.request.settles:
            self._owed.add(account or Account(time.monotonic(), question), sent=sent, refused=refused)
            self._be_reminded()

    def _be_reminded(self) -> None:
        if self._owed and self._reminder is None:
            wait = self._breaker.retry_after(time.monotonic()) or AGAIN * ceil(len(self._owed) / SLICE)
            self._reminder = self._loop.call_later(wait, self._remind)

    def _remind(self) -> None:
        self._reminder = None
        self._owed.again()
        self._pay()
        self._be_reminded()

    def _pay(self) -> None:
        """Tell a slice of what is owed, if the last one is answered. While the breaker is open, the first may probe."""
        if self._late:
            return
        while self._late < SLICE and len(self._waiting) < MAX_WAITING and (taken := self._owed.take()) is not None:
            question, account = taken
            if not self._breaker.allows(time.monotonic()):
                self._owed.put_back(account)
                return
            self._probing = self._breaker.is_open
            self._late += 1
            self._enqueue(question, None, account)

    def _enqueue(
        self, question: Question, future: asyncio.Future[Verdict] | None, account: Account | None = None
    ) -> None:
        self._waiting.append((question, future, account))
        if not self._starting and len(self._calls) < MAX_CALLS:
            self._start()

    def _start(self) -> None:
        self._starting = True
        call = self._loop.create_task(self._run())
        self._calls.add(call)
        call.add_done_callback(self._forget)

    def _forget(self, call: asyncio.Task[None]) -> None:
        """Note the end of a call that was cancelled before its first step, as where the event loop ends: it cannot."""
        if call in self._calls and call.cancelled():
            self._calls.discard(call)
            self._starting = False
            for future in self._left(self._waiting):
                future.cancel()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while calls := [call for call in self._calls if not call.done()]:
            await asyncio.wait(calls)

    async def leave(self) -> list[Account]:
        """Wait until nothing is under way, and ask no more; the accounts that could not be told.

        What is not sent within `PARTING`, or the time that a request waits if that is longer, is never sent.
        """
        left: list[Account] = []
        self._owed.again()
        self._pay()
        try:
            async with asyncio.timeout(max(PARTING, self._timeout)):
                await self.settled()
        except TimeoutError:
            self._failed(self._waiting, TimeoutError(), first=False)
            left = self._owed.take_all()
            await self.settled()
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None
        self._outages.close()
        return left + self._owed.take_all()

    async def run(self, command: Awaitable[object]) -> StoreUnavailableError | None:
        """Wait for a command that is none of a request's, on a connection of its own.

        It may take longer than a request waits, and then counts as a failure all the same, as theirs would.

        Returns:
            What a request would have met that waited for it; None if it was answered in time.

        Raises:
            RedisError, OSError, TimeoutError: it was not answered. That is not noted yet.
        """
        late: asyncio.Future[None] = self._loop.create_future()
        self._commands[late] = self._patience.now() + self._timeout
        self._patience.attend()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(max(CONNECT_TIMEOUT, self._timeout)):
                await command
        finally:
            del self._commands[late]
        if not late.done():
            self.works()
            return None
        took = time.perf_counter() - began
        self.fails(TimeoutError())
        return StoreUnavailableError(
            f"the store does not answer in time: it took {took:.3f} s, and {PREFIX}STORE_TIMEOUT is {self._timeout} s"
        )

    async def _run(self) -> None:
        """Serve who waits, call after call, until nobody does."""
        concerned: _Batch | deque[_Waiter] = self._waiting  # by a failure: all, until there is a connection
        epoch = self._epoch
        try:
            if not self._link.is_open:
                await self._link.open()
                self._hasten()
            self._starting = False
            # Servers may close a connection between two calls: who was not asked by it is asked by the next one.
            while self._link.is_open and (concerned := self._next_batch()):
                epoch = self._epoch
                if self._waiting and not self._starting and len(self._calls) < MAX_CALLS:
                    self._start()
                self._answer(concerned, await self._call(concerned))
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(concerned, error, first=self._drop(epoch))
        except asyncio.CancelledError:
            # The event loop ends.
            for future in self._left(concerned):
                future.cancel()
            raise
        except Exception as error:
            # Not the store's failure but a defect: whoever waits is told, and refused.
            logger.exception("asking the store failed")
            self._drop(epoch)
            for future in self._left(concerned):
                future.set_exception(error)
        finally:
            self._calls = {call for call in self._calls if call is not asyncio.current_task()}
            if concerned is self._waiting:
                self._starting = False
            if self._waiting and not self._starting:
                self._start()

    def _hasten(self) -> None:
        """Let the next request probe at once, if a connection took longer than the one that had it opened could wait.

        Opening it takes several times as long as an answer, so a probe may fail by that alone.
        """
        if self._breaker.is_open and not any(future is None or not future.done() for _, future, _ in self._waiting):
            self._breaker.hasten(time.monotonic())

    async def _call(self, batch: _Batch) -> Sequence[Verdict | Exception | Unwritten | None]:
        """Ask all of a batch."""
        began = time.perf_counter()  # some loops count in milliseconds
        self._asked += len(batch)
        try:
            async with asyncio.timeout(None) as bound:
                self._bounds[bound] = self._patience.now() + self._timeout
                self._patience.attend()
                try:
                    verdicts = await self._link.ask([question for question, _, _ in batch])
                finally:
                    self._bounds.pop(bound, None)
        finally:
            self._asked -= len(batch)
            if self._late:
                self._late -= _late(batch)
        self._watch.answered(time.perf_counter() - began, len(batch))
        return verdicts

    def _drop(self, epoch: int) -> bool:
        """Drop the connection, unless the other call that it failed has done so, and there may be a new one."""
        if epoch != self._epoch:
            return False
        self._epoch += 1
        try:
            self._link.close()
        except Exception:
            logger.exception("dropping a connection failed")
        return True

    def _next_batch(self) -> _Batch:
        """The first that still wait, up to half of all that wait or are asked, or `MIN_BATCH`, until it is full."""
        batch: _Batch = []
        waiting, keys = self._waiting, 0
        # Who is answered together often asks again together. So without this a large and a small call would take turns
        # for good, and this process would wait for the large one with nothing to do.
        half = max(MIN_BATCH, (len(waiting) + self._asked + 1) // 2)
        while waiting and keys < MAX_KEYS and len(batch) < half:
            waiter = (_, _, own, sets), future, _ = waiting.popleft()
            if future is not None and future.done():
                continue
            batch.append(waiter)
            keys += len(own) + len(sets) or 1
        return batch

    def _answer(self, batch: _Batch, verdicts: Sequence[Verdict | Exception | Unwritten | None]) -> None:
        self._note(batch, verdicts)
        refused = []
        for (question, future, account), verdict in zip(batch, verdicts, strict=True):
            if future is None:
                if _passes(verdict):
                    refused.append((question, account))
            elif future.done():
                continue
            elif isinstance(verdict, Verdict):
                future.set_result(verdict)
            elif isinstance(verdict, Unwritten):
                future.set_exception(self.unavailable(verdict.error, sent=False, revoked=verdict.revoked))
            elif verdict is not None:
                future.set_exception(verdict)
        deadlines = self._deadlines
        while deadlines and deadlines[0][1].done():
            deadlines.popleft()
        # Behind what was noted, by which what was refused before is due again if the breaker closes.
        for question, account in refused:
            self._owe(question, account, refused=True)

    def _note(self, batch: _Batch, verdicts: Sequence[Verdict | Exception | Unwritten | None]) -> None:
        """Note how the server answers: that it counts nobody is a failure, which that it can be read does not end."""
        if not self._reads and Unwritten not in map(type, verdicts):
            self.works()
            return
        answered = zip((question for question, _, _ in batch), verdicts, strict=True)
        if any(_wrote(question, verdict) for question, verdict in answered):
            self.works()
        elif failures := [verdict.error for verdict in verdicts if isinstance(verdict, Unwritten)]:
            self.fails(failures[0])

    def works(self) -> None:
        """Note that the store answers."""
        self._probing = self._reads = False
        if self._breaker.succeeded():
            self._outages.ends()
            self._owed.again()
        if self._owed.is_due:
            self._pay()

    def _expire(self) -> float | None:
        """Let those go who have waited for as long as they may; give how many seconds the next one has left."""
        now, expired = self._patience.now(), False
        while self._deadlines and (self._deadlines[0][1].done() or self._deadlines[0][0] <= now):
            _, future = self._deadlines.popleft()
            if not future.done():
                expired = True
                future.set_exception(self.unavailable(TimeoutError()))
        if expired:
            self.fails(TimeoutError())
        for bound, end in tuple(self._bounds.items()):
            if end <= now:
                # Once: uvloop may look again before its task has woken, and one that expires cannot be rescheduled.
                del self._bounds[bound]
                bound.reschedule(0)
        for late, end in self._commands.items():
            if end <= now and not late.done():
                late.set_result(None)
        bounds = (*self._bounds.values(), *self._commands.values())
        ends = (*(end for end in bounds if end > now), *(end for end, _ in islice(self._deadlines, 1)))
        return min(ends) - now if ends else None

    def _failed(self, concerned: _Batch | deque[_Waiter], error: Exception, *, first: bool) -> None:
        told = any(future is not None and future.done() and not future.cancelled() for _, future, _ in concerned)
        refused = isinstance(error, ResponseError)
        sent = concerned is not self._waiting and not (refused and _passes(error))
        if not refused or _passes(error):
            for question, future, account in concerned:
                if future is None:
                    self._owe(question, account, sent=sent, refused=refused)
        left = self._left(concerned)
        # The calls of one connection fail together, and count as one; who has waited too long has been counted.
        if first and not (told and isinstance(error, TimeoutError)):
            self.fails(error)
        for future in left:
            future.set_exception(self.unavailable(error, sent=sent))

    def _left(self, waiters: _Batch | deque[_Waiter]) -> list[asyncio.Future[Verdict]]:
        """Take out whoever still waits."""
        if waiters is self._waiting:
            self._late -= _late(waiters)
        left = [future for _, future, _ in waiters if future is not None and not future.done()]
        waiters.clear()
        return left

    def fails(self, error: Exception) -> None:
        """Note a failure. What was under way when the breaker opened does not open it for longer: that is one stall."""
        self._watch.failed()
        self._reads = can_be_read(error)
        if self._breaker.is_open and not self._probing:
            return
        self._probing = False
        if self._breaker.failed(time.monotonic()):
            self._outages.begins(error)

    def unavailable(self, error: Exception, *, sent: bool = True, revoked: bool | None = None) -> StoreUnavailableError:
        """The error for those who were not answered, without what the server said, which may hold anything."""
        wait = self._breaker.retry_after(time.monotonic()) or 1.0
        said = f"the store does not answer ({type(error).__name__})"
        failure = StoreUnavailableError(said, wait, sent=sent, revoked=revoked)
        failure.__cause__ = error
        return failure


def can_be_read(error: BaseException | None) -> bool:
    """Whether a server that failed by this only refuses to write."""
    if isinstance(error, OutOfMemoryError | ReadOnlyError):  # of which the client's own way drops the first word
        return True
    return isinstance(error, ResponseError) and _UNWRITABLE.search(str(error)) is not None


def _wrote(question: Question, answer: object) -> bool:
    """Whether an answer shows that something was written: a refusal writes nothing, and an account may only remove."""
    return isinstance(answer, Verdict) and answer.admitted and any(charge.cost for charge in question.request.charges)


def _passes(answer: object) -> bool:
    """Whether a server that answers this charged nobody, and may well do so later."""
    error = answer.error if isinstance(answer, Unwritten) else answer
    if not isinstance(error, Exception):
        return False
    return isinstance(error, TryAgainError | ClusterDownError) or _PASSING.search(str(error)) is not None


def _late(waiters: Iterable[_Waiter]) -> int:
    """How many of them were owed."""
    return sum(account is not None for _, _, account in waiters)
