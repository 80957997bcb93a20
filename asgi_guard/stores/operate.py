"""What an operator asks of a shared store: what stands in a bucket, which ones are the emptiest, and to fill one again.

None of it is on the path of a request. The keys are those that requests use; the commands are `TIME`, `SCAN`, `GET`,
`ZCOUNT` and `DEL`.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PAGE = 1000
"""Keys that are looked at in one round trip."""
LAST = 5.0
"""Seconds in which the last keys are looked at when the time to find more is over."""
_NAME = re.compile(r"\{(?P<client>[^}]*)\}:(?P<bucket>(?P<limit>[a-z0-9-]+):[0-9]+x[0-9]+)")


class Found(NamedTuple):
    """One bucket, or the requests under way of one client.

    Attributes:
        client: whom it counts, as the store names it.
        limit: the limit's name.
        bucket: what the limit's buckets are called: the name, and the rate by which it is filled.
        reset: microseconds until the bucket is full; 0 if it is.
        under_way: requests under way; 0 for a bucket.
    """

    client: str
    limit: str
    bucket: str
    reset: int
    under_way: int


async def look(client: Any, prefix: str, keys: Sequence[str]) -> list[Found]:
    """What stands under these keys, in order; what there is not is full.

    Args:
        client: a Redis client, of a single server or of a cluster.
        prefix: what stands before every key.
        keys: names of buckets as charges have them.
    """
    return await _found(client, prefix, keys, await _now(client))


async def scan(client: Any, prefix: str, patience: float) -> AsyncIterator[Found]:
    """Everything that stands in the store under the prefix, in no order. It takes a while, and holds nobody up.

    Args:
        client: a Redis client, of a single server or of a cluster.
        prefix: what stands before every key.
        patience: seconds that may be looked for keys; those found by then are still looked at, in `LAST` at most.

    Raises:
        TimeoutError: there may be more.
    """
    clock = asyncio.get_running_loop().time
    deadline, late = clock() + patience, False
    async with asyncio.timeout_at(deadline):
        now = await _now(client)
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "{*"
    names = client.scan_iter(match=pattern, count=PAGE)
    more = True
    while more:
        page: list[str] = []
        try:
            async with asyncio.timeout_at(deadline):
                more = await _fill(page, names, prefix)
        except TimeoutError:
            late, more = True, False
        else:
            # A time-out that has passed before it begins may not end anything: Python 3.11's wait_for, by which
            # redis-py sends, loses a cancellation that comes with the end of what it waits for.
            late = more and clock() >= deadline
            more = more and not late
        async with asyncio.timeout_at(deadline + LAST):
            looked_at = await _found(client, prefix, page, now)
        for found in looked_at:
            yield found
    if late:
        raise TimeoutError


async def _fill(page: list[str], names: AsyncIterator[bytes], prefix: str) -> bool:
    """Put the next names into a page; whether there may be more."""
    async for name in names:
        page.append(name.decode("utf-8", "replace").removeprefix(prefix))
        if len(page) >= PAGE:
            return True
    return False


async def reset(client: Any, prefix: str, keys: Sequence[str]) -> int:
    """Forget these buckets, so that they are full; how many there were."""
    return sum([await client.delete(prefix + key) for key in keys])


async def _now(client: Any) -> int:
    seconds, microseconds = await client.time()
    return int(seconds) * 1_000_000 + int(microseconds)


async def _found(client: Any, prefix: str, keys: Sequence[str], now: int) -> list[Found]:
    """What stands under these keys, in one round trip, or two; what is none of ours is left out."""
    matches = [match for match in map(_NAME.fullmatch, keys) if match is not None]
    values = await _each(client, "get", [(prefix + match[0],) for match in matches])
    # What is not a text is a set of requests under way.
    sets = [place for place, value in enumerate(values) if isinstance(value, ResponseError) and _is_of_another(value)]
    counts = await _each(client, "zcount", [(prefix + matches[place][0], f"({now}", "+inf") for place in sets])
    under_way = dict(zip(sets, counts, strict=True))
    found = []
    for place, (match, value) in enumerate(zip(matches, values, strict=True)):
        answer = under_way.get(place, value)
        if isinstance(answer, ResponseError) and _is_of_another(answer):
            continue  # requests read it as a full bucket
        if isinstance(answer, Exception):
            raise answer
        state, count = (0, int(answer)) if place in under_way else (_state(answer), 0)
        found.append(Found(match["client"], match["limit"], match["bucket"], max(0, state - now), count))
    return found


def _is_of_another(error: ResponseError) -> bool:
    """Whether a key is of another type than the command is for."""
    return str(error).startswith("WRONGTYPE")


def _state(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0


async def _each(client: Any, command: str, arguments: Sequence[tuple[str, ...]]) -> list[Any]:
    """The answers to a command for each of these arguments, or the errors, all asked at once."""
    if not arguments:
        return []
    async with client.pipeline(transaction=False) as pipeline:
        for each in arguments:
            getattr(pipeline, command)(*each)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
    return answers
