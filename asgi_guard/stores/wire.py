"""What the script of the Redis store is asked, and what it answers, as `admit.lua` describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from asgi_guard.policy.bucket import Admission, Verdict, allowed, decide, judged
from asgi_guard.policy.revocation import is_revoked

if TYPE_CHECKING:
    from collections.abc import Sequence


class Question(NamedTuple):
    """One request, ready to be asked among others.

    Attributes:
        request: what it was made of.
        token: the key of its token among the revoked.
        charges: of each, its key, its cost, its room, whether it is binding (1 or 0), and whether the key is a set of
            requests under way.
        session: the key of its token's session among the revoked.
        subject: the key of its token's subject there, which holds an instant.
    """

    request: Admission
    token: bytes | None
    charges: tuple[tuple[bytes, int, int, int, bool], ...]
    session: bytes | None = None
    subject: bytes | None = None


def question(request: Admission, prefix: str) -> Question:
    """Make a request ready. Whatever is wrong with it is its own error, not that of those asked beside it.

    Raises:
        ValueError: a cost is negative, a request that is counted among those under way has no name, or its name is not
            ASCII.
    """
    if not request.lease.isascii():
        raise ValueError("the name of a request under way is ASCII")  # JSON holds no lone surrogates
    charges = []
    for limit, key, cost, binding in request.charges:
        name = (prefix + key).encode("utf-8", "surrogatepass")
        if limit.at_once:
            if not request.lease:
                raise ValueError("a request that is counted among those under way needs a name")
            charges.append((name, limit.interval, limit.burst, 1 if binding else 0, True))
        else:
            if cost < 0 and not request.settles:
                raise ValueError("a cost is negative: units are given back only when an account is settled")
            units, capacity = cost * limit.interval, limit.capacity
            if not -capacity <= units <= capacity:
                # More than all of it is too much, however much more; so no number leaves the range of exact ones.
                units = capacity + 1 if units > 0 else -capacity
            charges.append((name, units, capacity, 1 if binding else 0, False))
    token = None if request.token_id is None else revocation_key(request.token_id, prefix)
    if request.marks is None:
        return Question(request, token, tuple(charges))
    session, subject, _ = request.marks
    return Question(
        request,
        token,
        tuple(charges),
        None if session is None else revocation_key(session, prefix),
        revocation_key(subject, prefix),
    )


def revocation_key(name: str, prefix: str) -> bytes:
    """The key of a token, a session or a subject among the revoked."""
    return f"{prefix}revoked:{name}".encode("utf-8", "surrogatepass")


def pack(*words: bytes) -> bytes:
    """A command as the protocol has it: an array of strings. The client's own way takes several times as long."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def encode(questions: Sequence[Question], now: int = 0) -> list[bytes]:
    """The arguments of the script, behind its name: the number of keys, the keys, and the questions.

    Args:
        questions: what is asked, in order.
        now: microseconds since the Unix epoch by our own clock; 0 leaves it to the server's.
    """
    strings: dict[bytes, int] = {}
    sets: dict[bytes, int] = {}
    batch: list[Any] = [now, 0, 1]
    for request, token, charges, session, subject in questions:
        row: list[Any] = [0, 0, request.lease]
        if request.settles:
            row[0], batch[2] = 1, 0
        if token is not None or session is not None or subject is not None:
            looked_up = [0 if subject is None else strings.setdefault(subject, len(strings) + 1)]
            looked_up += (strings.setdefault(key, len(strings) + 1) for key in (token, session) if key is not None)
            row[1] = looked_up
        for key, cost, room, binding, at_once in charges:
            # Sets come after all strings, whose number is not known yet.
            place = -sets.setdefault(key, len(sets) + 1) if at_once else strings.setdefault(key, len(strings) + 1)
            row += (place, cost, room, binding)
        batch.append(row)
    batch[1] = count = len(strings)
    if sets:
        batch[2] = 0
        for row in batch[3:]:
            for at in range(3, len(row), 4):
                if row[at] < 0:
                    row[at] = count - row[at]
    return [b"%d" % (count + len(sets)), *strings, *sets, orjson.dumps(batch)]


def decode(answer: bytes, questions: Sequence[Question]) -> list[Verdict | None]:
    """The verdicts that the script's answer holds; None for accounts, which nobody waits for."""
    words: list[int] = orjson.loads(b"[%b]" % answer)  # numbers and commas, so several times as fast as `int` of each
    now, at = words[0], 1
    verdicts: list[Verdict | None] = []
    for request, _, _, _, _ in questions:
        if request.settles:
            verdicts.append(None)
            continue
        charges, head, at = request.charges, at, at + 2 + len(request.charges)
        states = words[head + 2 : at]
        readings = allowed(charges, states, now)
        if readings is None:
            readings = decide(charges, states, now)[2]
        verdicts.append(judged((words[head] == 1, readings, is_revoked(words[head + 1], request.marks))))
    return verdicts
