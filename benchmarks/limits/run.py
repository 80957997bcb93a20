"""All parts of the benchmark of limits, one after the other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.limits import exact, faults, memory, outages, refused, sizes, throughput
from benchmarks.limits.contenders import Contender, Skipped, everyone, ours, present
from benchmarks.limits.servers import NoServerError, target

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.limits.exact import Admitted, Steps
    from benchmarks.limits.faults import Flush, Stall
    from benchmarks.limits.memory import Memory
    from benchmarks.limits.outages import Outage
    from benchmarks.limits.refused import Refused
    from benchmarks.limits.servers import Target
    from benchmarks.limits.sizes import Size
    from benchmarks.limits.throughput import Delayed, Throughput

ALL_LEVELS = (1, 16, 64, 100, 256)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        one: levels of concurrency for checks of one window, and
        two: for those of two windows and a token.
        delayed: levels behind the delay.
        rounds: turns of each contender, of
        seconds: this length.
        further: rounds more of those whose ratio is asked, at the levels where it is.
        clients: clients whose keys fill the server.
        stores: keys in the stores in memory.
        at_least: keys in all, where a store holds fewer.
        flood: addresses that meet a store in memory which holds
        max_keys: this many.
        refusals: rounds of refusals.
        outage: seconds of requests to our layer in each kind of outage.
        patience: seconds until a call of another in an outage is given up.
        stall: seconds that the server stands still.
        turns: of load for each contender while scripts are flushed, of
        flush: seconds each.
        steps: of the pure policy.
        compare: seconds for which each contender is asked for too much.
    """

    one: tuple[int, ...] = ALL_LEVELS
    two: tuple[int, ...] = ALL_LEVELS
    delayed: tuple[int, ...] = (1, 64)
    rounds: int = 7
    seconds: float = 0.2
    further: int = 38
    clients: int = 100_000
    stores: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    at_least: int = 100_000
    flood: int = 1_000_000
    max_keys: int = 100_000
    refusals: int = 50
    outage: float = 2.0
    patience: float = 10.0
    stall: float = 1.0
    turns: int = 7
    flush: float = 0.5
    steps: int = 2_000_000
    compare: float = 1.0


FULL = Budget()
QUICK = Budget(
    two=(1, 64), rounds=3, seconds=0.05, further=0, clients=20_000, stores=(1_000, 100_000), flood=200_000, refusals=10,
    outage=1.0, patience=2.0, turns=3, flush=0.2, steps=1_000_000, compare=0.2,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """All that one run found.

    Attributes:
        server: for throughput, and
        own_server: for all else; None where only the one that was given could be asked.
        peers: the versions of the packages beside ours.
        skipped: contenders that are not here.
        throughput: checks a second, of each kind of check.
        delayed: the same behind a network that delays.
        sizes: bytes in the server.
        memory: the store in memory.
        flooded: the store in memory, met by more addresses than it holds.
        refused: refusals.
        outages: no server.
        stalls: a server that stands still for a while.
        flushes: a server that forgets its scripts.
        steps: the policy's decisions.
        admitted: how much each contender admits.
    """

    server: str
    own_server: str | None
    peers: dict[str, str]
    skipped: list[Skipped]
    throughput: list[Throughput]
    delayed: Delayed | None
    sizes: list[Size]
    memory: list[Memory]
    flooded: Memory | None
    refused: list[Refused]
    outages: list[Outage]
    stalls: list[Stall]
    flushes: list[Flush]
    steps: Steps
    admitted: list[Admitted]


class Meter:
    """Tells how far the run is, part by part.

    Args:
        update: is told the name of the part under way, and the seconds that count as passed.
    """

    def __init__(self, update: Callable[[str, float], None]) -> None:
        self._update = update

    def part(self, name: str, seconds: float, whole: float = 1.0) -> Callable[[float], None]:
        """Begin a part that takes about so many seconds, and that counts its steps up to a whole."""
        self._update(name, 0)
        return lambda step: self._update(name, step / whole * seconds)


def expected(budget: Budget, contenders: int) -> dict[str, float]:
    """About how many seconds each part takes, for the progress bar only."""
    turn = budget.rounds * budget.seconds * contenders
    levels = len(budget.one) + len(budget.two)
    opening = sum(0.01 * level * contenders for level in (*budget.one, *budget.two)) / 2
    return {
        "throughput": (turn * levels + _further(budget)) * 1.3 + opening,
        "delay": 1 + len(budget.delayed) * 2 * budget.rounds * budget.seconds * 1.3,
        "bytes": 2 + 6 * budget.clients / 10_000,
        "memory": 3 + (sum(budget.stores) + budget.flood) * 15e-6,
        "refusals": 1 + budget.refusals * 0.05,
        "outages": 2 * budget.outage + budget.patience,
        "stall": 1 + budget.stall,
        "flush": contenders * budget.turns * budget.flush * 1.1,
        "steps": budget.steps * 8e-6,
        "admissions": contenders * budget.compare * 1.1,
    }


def _further(budget: Budget) -> float:
    """Seconds of the rounds that only two have."""
    return 2 * budget.further * budget.seconds * sum(level in throughput.ASKED for level in (*budget.one, *budget.two))


def measure(store: str | None, budget: Budget, begin: Callable[[float], Callable[[str, float], None]]) -> Figures:
    """Measure everything.

    Only throughput is measured with a server that someone gave: what else is done to a server is done to one of ours,
    which is therefore started first. Where none can be started, those parts are left out, by name.

    Args:
        store: the URL of the server for throughput; None starts one.
        budget: how much.
        begin: is told how long it will take in all, and gives what is told how far it is.

    Raises:
        NoServerError: none was given, and none can be started.
    """
    contenders, skipped = present(everyone())
    lasting = expected(budget, len(contenders))
    meter = Meter(begin(sum(lasting.values())))

    def part(name: str, whole: float = 1.0) -> Callable[[float], None]:
        return meter.part(name, lasting[name], whole)

    levels = {throughput.ONE: budget.one, throughput.TWO: budget.two}
    with ExitStack() as stack:
        own = _own(stack, store, skipped)
        asked = stack.enter_context(target(store))
        server = asked.describe()
        spent = budget.rounds * budget.seconds * len(contenders) * (len(budget.one) + len(budget.two))
        through = throughput.measure(
            asked, contenders, levels, budget.rounds, budget.seconds, part("throughput", spent + _further(budget)),
            budget.further,
        )  # fmt: skip
        spent = budget.rounds * budget.seconds * 2 * len(budget.delayed)
        delayed = None
        if own is not None:
            passed = part("delay", spent)
            delayed = throughput.measure_delayed(own, budget.delayed, budget.rounds, budget.seconds, passed)
        held = sizes.measure(own, contenders, budget.clients, part("bytes")) if own else []
        filled, flooded = _memory(budget, part("memory"), skipped)
        return Figures(
            server,
            own.describe() if own else None,
            {contender.package: contender.version() for contender in contenders if contender.package is not None},
            skipped,
            through,
            delayed,
            held,
            filled,
            flooded,
            refused.measure(own, contenders, budget.refusals, part("refusals")) if own else [],
            outages.measure(contenders, budget.outage, budget.patience, part("outages")),
            faults.stall(own, contenders, budget.stall, budget.patience, part("stall")) if own else [],
            faults.flush(own, contenders, budget.turns, budget.flush, part("flush")) if own else [],
            exact.generate(budget.steps, part("steps")),
            exact.compare(own, contenders, budget.compare, part("admissions")) if own else [],
        )


OF_OUR_OWN = (
    "behind a network that delays", "bytes in the server", "refusals", "a server that stands still",
    "scripts that are flushed", "admissions of each limiter",
)  # fmt: skip
"""What is done to no server that someone gave."""


def _own(stack: ExitStack, store: str | None, skipped: list[Skipped]) -> Target | None:
    """A server of our own; without one, what is only done to such a one is left out, if another was given."""
    try:
        return stack.enter_context(target(None))
    except NoServerError as error:
        if store is None:
            raise
        skipped += [Skipped(name, f"it needs a server of its own: {error}") for name in OF_OUR_OWN]
        return None


def _memory(
    budget: Budget, passed: Callable[[float], None], skipped: list[Skipped]
) -> tuple[list[memory.Memory], memory.Memory | None]:
    if memory.supported():
        return memory.measure(budget.stores, budget.at_least, budget.flood, budget.max_keys, passed)
    skipped.append(Skipped("the store in memory", "this system does not tell a process's memory in /proc"))
    passed(1.0)
    return [], None


@dataclass(frozen=True, slots=True)
class Brief:
    """The short part: ours, and one call a check.

    Attributes:
        server: that was asked.
        checks: what was found.
    """

    server: str
    checks: Throughput


BRIEF_LEVELS = (1, 16, 64)
BRIEF_ROUNDS = 3


def brief(store: str | None, seconds: float, passed: Callable[[float], None]) -> Brief:
    """Measure checks of two windows and a token for a short while.

    Args:
        store: the URL of the server; None starts one.
        seconds: for how long.
        passed: is told the seconds that have been spent.
    """
    from benchmarks.limits import scripts

    contenders: list[Contender] = [ours(), scripts.CONTENDERS[0]]
    turn = seconds / (len(BRIEF_LEVELS) * BRIEF_ROUNDS * len(contenders))
    with target(store) as asked:
        levels = {throughput.TWO: BRIEF_LEVELS}
        (checks,) = throughput.measure(asked, contenders, levels, BRIEF_ROUNDS, turn, passed)
        return Brief(asked.describe(), checks)
