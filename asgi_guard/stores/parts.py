"""A request to a cluster, taken apart by the slots that its keys are in, and its verdict put together again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from redis.crc import key_slot

from asgi_guard.policy.bucket import Charge, Reading, Verdict
from asgi_guard.policy.revocation import Marks
from asgi_guard.stores.wire import Question, question, revocation_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_guard.policy.bucket import Admission


class Part(NamedTuple):
    """What a request asks of one slot.

    Attributes:
        slot: the slot.
        question: what is asked.
        places: where its charges stand among those of the request.
    """

    slot: int
    question: Question
    places: tuple[int, ...]


def slot_of(question: Question) -> int:
    """The slot of a question whose keys are all in one."""
    return key_slot((question.keys or question.sets or [b""])[0])


def split(request: Admission, prefix: str) -> list[Part]:
    """Take a request apart: one part a slot, in the order in which the slots occur. No key makes no part.

    Raises:
        ValueError: as `question` does.
    """
    whole = question(request, prefix)
    slots = dict.fromkeys(map(key_slot, (*whole.keys, *whole.sets)))
    if len(slots) == 1:
        return [Part(next(iter(slots)), whole, tuple(range(len(request.charges))))]

    def slot(name: str | None) -> int | None:
        return None if name is None else key_slot(revocation_key(name, prefix))

    token, marks = slot(request.token_id), request.marks or Marks(None, None)
    session, subject = slot(marks.session), slot(marks.subject)
    charged = [key_slot((prefix + charge.key).encode("utf-8", "surrogatepass")) for charge in request.charges]
    parts = []
    for here in slots:
        places = tuple(place for place, other in enumerate(charged) if other == here)
        part = Marks(
            marks.session if session == here else None, marks.subject if subject == here else None, marks.issued
        )
        asked = request._replace(
            charges=tuple(request.charges[place] for place in places),
            token_id=request.token_id if token == here else None,
            marks=None if part.session is None and part.subject is None else part,
        )
        parts.append(Part(here, question(asked, prefix), places))
    return parts


def merge(answered: Sequence[tuple[Part, Verdict]]) -> Verdict:
    """The verdict on the request, from those on its parts: if one refuses, what the others took is taken back."""
    admitted = all(verdict.admitted for _, verdict in answered)
    readings: dict[int, Reading] = {}
    for part, verdict in answered:
        for place, charge, reading in zip(part.places, part.question.request.charges, verdict.readings, strict=True):
            taken = verdict.admitted and reading.wait == 0
            readings[place] = _before(charge, reading) if taken and not admitted else reading
    ordered = tuple(readings[place] for place in range(len(readings)))
    return Verdict(admitted, ordered, any(verdict.revoked for _, verdict in answered))


def is_revoked(known: Iterable[bool | None]) -> bool | None:
    """Whether a token is revoked, from what each slot tells of it; None where one does not, and none says so."""
    told = set(known)
    return True if True in told else None if None in told else False


def taken(part: Part, verdict: Verdict) -> tuple[Charge, ...]:
    """What a part took, as charges that give it back when they are settled."""
    if not verdict.admitted:
        return ()
    return tuple(
        replace(charge, cost=-charge.cost)
        for charge, reading in zip(part.question.request.charges, verdict.readings, strict=True)
        if reading.wait == 0 and (charge.cost or charge.limit.at_once)
    )


def _before(charge: Charge, reading: Reading) -> Reading:
    """What a reading was before its charge was taken."""
    limit = reading.limit
    if limit.at_once:
        return reading._replace(remaining=reading.remaining + 1)
    reset = reading.reset - charge.cost * limit.interval
    return reading._replace(remaining=(limit.capacity - reset) // limit.interval, reset=reset)
