"""What the script of the Redis store is asked, and what it answers, as `admit.lua` describes them."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import orjson
from redis.exceptions import ResponseError

from asgi_guard.policy.bucket import Admission, Verdict, allowed, decide
from asgi_guard.policy.revocation import is_revoked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Question(NamedTuple):
    """One request, ready to be asked among others.

    Attributes:
        request: what it was made of.
        shape: all that the script is told of it beside its keys; many requests have the same.
        keys: of its token's subject, its token and its session among the revoked, as far as they are asked, then of
            its buckets.
        sets: the keys of those of its limits that count requests under way.
    """

    request: Admission
    shape: tuple[int, ...]
    keys: list[bytes]
    sets: list[bytes]


_BEFORE_7 = re.compile(r"^(?:@user_script: \d+: )?-")
"""What servers before version 7 put before an error."""
_made: Callable[[tuple[Admission, tuple[int, ...], list[bytes], list[bytes]]], Question]
_made = partial(tuple.__new__, Question)
"""Makes a question of all its parts, as `asked` makes an admission."""


class Unwritten(NamedTuple):
    """The answer to a request that is not counted, since the server lets nothing be written: it is full, or a replica.

    Attributes:
        error: what the server says.
        revoked: whether the request's token is, which can be read all the same.
    """

    error: ResponseError
    revoked: bool


def question(request: Admission, prefix: str) -> Question:
    """Make a request ready. Whatever is wrong with it is its own error, not that of those asked beside it.

    Raises:
        ValueError: a cost is negative, or a request that is counted among those under way has no name.
    """
    charges, token_id, lease, settles, marks = request
    keys, sets, shape = [], [], [1 if settles else 0, 0, 0]
    if marks is not None and marks.subject is not None:
        shape[1] = 1
        keys.append(revocation_key(marks.subject, prefix))
    if token_id is not None:
        shape[2] = 1
        keys.append(revocation_key(token_id, prefix))
    if marks is not None and marks.session is not None:
        shape[2] += 1
        keys.append(revocation_key(marks.session, prefix))
    for charge in charges:
        limit, binding = charge.limit, 1 if charge.binding else 0
        name = (prefix + charge.key).encode("utf-8", "surrogatepass")
        if limit.at_once:
            if not lease:
                raise ValueError("a request that is counted among those under way needs a name")
            sets.append(name)
            shape += (limit.interval, limit.burst, binding, 1)
        else:
            units, capacity = charge.advance, limit.capacity
            if units < 0 and not settles:
                raise ValueError("a cost is negative: units are given back only when an account is settled")
            if not -capacity <= units <= capacity:
                # More than all of it is too much, however much more; so no number leaves the range of exact ones.
                units = capacity + 1 if units > 0 else -capacity
            keys.append(name)
            shape += (units, capacity, binding, 0)
    return _made((request, tuple(shape), keys, sets))


def look_up(asked: Question) -> Question | None:
    """What a question asks of its token alone, which charges nobody; None where it asks nothing of one."""
    request, (_, subject, named, *_), keys, _ = asked
    if not subject + named:
        return None
    request = request._replace(charges=(), lease="")
    return _made((request, (0, subject, named), keys[: subject + named], []))


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
    keys: list[bytes] = []
    sets: list[bytes] = []
    leases: list[bytes] = []
    shapes: dict[tuple[int, ...], int] = {}
    asked: list[int] = []
    for request, shape, own, under_way in questions:
        asked.append(shapes.setdefault(shape, len(shapes) + 1))
        keys += own
        if under_way:
            sets += under_way
            leases.append(request.lease.encode("utf-8", "surrogatepass"))
    usual = not sets and not any(shape[0] for shape in shapes)
    told = orjson.dumps((now, len(keys), 1 if usual else 0, (*shapes,), asked))
    return [b"%d" % (len(keys) + len(sets)), *keys, *sets, told, *leases]


def refusal(answer: Sequence[bytes]) -> ResponseError:
    """What the server says, in an answer of the script, of why it lets nothing be written."""
    return ResponseError(_BEFORE_7.sub("", answer[1].decode("utf-8", "replace").strip()))


def read(answer: bytes | Sequence[bytes], questions: Sequence[Question]) -> Sequence[Verdict | Unwritten | None]:
    """What the script's answer says to each question. Where nothing was written, whoever only looks up is answered."""
    if isinstance(answer, bytes):
        return decode(answer, questions)
    error, answers = refusal(answer), []
    for asked, verdict in zip(questions, decode(answer[0], questions), strict=True):
        counted = verdict is None or asked.request.charges
        answers.append(Unwritten(error, verdict is not None and verdict.revoked) if counted else verdict)
    return answers


def decode(answer: bytes, questions: Sequence[Question]) -> list[Verdict | None]:
    """The verdicts that the script's words hold; None for accounts, which nobody waits for."""
    words: list[int] = orjson.loads(b"[%b]" % answer)  # numbers and commas, so several times as fast as `int` of each
    now, at = words[0], 1
    verdicts: list[Verdict | None] = []
    for request, _, _, _ in questions:
        if request.settles:
            verdicts.append(None)
            continue
        charges, head, at = request.charges, at, at + 2 + len(request.charges)
        states = words[head + 2 : at]
        admitted, revoked = words[head] == 1, is_revoked(words[head + 1], request.marks)
        resets = allowed(charges, states, now) if admitted else None
        if resets is None:
            verdicts.append(Verdict(admitted, decide(charges, states, now)[2], revoked))
        else:
            verdicts.append(Verdict(True, (), revoked, charges, resets))
    return verdicts
