"""What is wrong with a layer's options, all of it at once, by option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the option it is in, and what to write instead.

    `kind` says in one word what sort of fault it is, where there are several; it may be empty.
    """

    field: str
    message: str
    kind: str = ""


class FaultsError(ValueError):
    """Everything that is wrong with a layer's options."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
