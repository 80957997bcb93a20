"""A request to a cluster, taken apart by the slots that its keys are in, and its verdict put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redis.crc import key_slot

from asgi_guard.policy.bucket import Charge, Reading, Verdict
from asgi_guard.stores.wire import Question

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    key = question.charges[0][0] if question.charges else question.token or question.session or question.subject or b""
    return key_slot(key)


def split(whole: Question) -> list[Part]:
    """Take a question apart: one part a slot, in the order in which the slots occur. No key makes no part."""
    request, token, charges, session, subject = whole
    slots = [key_slot(charge[0]) for charge in charges]
    looked_up = [None if key is None else key_slot(key) for key in (token, session, subject)]
    different = dict.fromkeys([*slots, *(slot for slot in looked_up if slot is not None)])
    if len(different) == 1:
        return [Part(next(iter(different)), whole, tuple(range(len(charges))))]
    parts = []
    for slot in different:
        places = tuple(place for place, other in enumerate(slots) if other == slot)
        has_token, has_session, has_subject = (slot == other for other in looked_up)
        asked = request._replace(
            charges=tuple(request.charges[place] for place in places),
            token_id=request.token_id if has_token else None,
            marks=request.marks if has_session or has_subject else None,
        )
        question = Question(
            asked,
            token if has_token else None,
            tuple(charges[place] for place in places),
            session if has_session else None,
            subject if has_subject else None,
        )
        parts.append(Part(slot, question, places))
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


def taken(part: Part, verdict: Verdict) -> tuple[Charge, ...]:
    """What a part took, as charges that give it back when they are settled."""
    if not verdict.admitted:
        return ()
    return tuple(
        charge._replace(cost=-charge.cost)
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
