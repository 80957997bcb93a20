"""What an operator asks of a shared store: what stands in a bucket, which ones are the emptiest, and to fill one again.

None of it is on the path of a request. The keys are those that requests use; the commands are `TIME`, `SCAN`, `GET`,
`ZCOUNT` and `DEL`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

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
    now = await _now(client)
    found = [await _found(client, prefix, key, now) for key in keys]
    return [each for each in found if each is not None]


async def scan(client: Any, prefix: str) -> AsyncIterator[Found]:
    """Everything that stands in the store under the prefix, in no order. It takes a while, and holds nobody up."""
    now = await _now(client)
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "{*"
    async for name in client.scan_iter(match=pattern, count=1000):
        found = await _found(client, prefix, name.decode("utf-8", "replace").removeprefix(prefix), now)
        if found is not None:
            yield found


async def reset(client: Any, prefix: str, keys: Sequence[str]) -> int:
    """Forget these buckets, so that they are full; how many there were."""
    return sum([await client.delete(prefix + key) for key in keys])


async def _now(client: Any) -> int:
    seconds, microseconds = await client.time()
    return int(seconds) * 1_000_000 + int(microseconds)


async def _found(client: Any, prefix: str, key: str, now: int) -> Found | None:
    """What stands under a key; None for what is none of ours."""
    match = _NAME.fullmatch(key)
    if match is None:
        return None
    try:
        value = await client.get(prefix + key)
    except ResponseError:
        # Not a text, so a set of requests under way.
        under_way = int(await client.zcount(prefix + key, f"({now}", "+inf"))
        return Found(match["client"], match["limit"], match["bucket"], 0, under_way)
    state = int(value) if value is not None and value.isdigit() else 0
    return Found(match["client"], match["limit"], match["bucket"], max(0, state - now), 0)
