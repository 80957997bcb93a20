"""Rows by their paths, ready to be matched: a thousand of them cost as much as one.

Exact paths are in a dict, patterns in a tree by their segments, of which a request goes down the branches that fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from asgi_guard.policy.rates import holds_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asgi_guard.policy.routes import Route

    _Row: TypeAlias = tuple[int, tuple[int, ...]]

NO_ROW = -1
"""The answer where no row matches."""


class _Node:
    """Where the segments lead that patterns have in common.

    Attributes:
        named: what follows, by the next segment; and
        any: what follows a `*` in its place.
        ends: the rows whose patterns end here, and
        below: those that hold for everything below; each with the rows that come before it where a slash is more or
            less than in its own pattern, since they name that path.
    """

    __slots__ = ("any", "below", "ends", "named")

    def __init__(self) -> None:
        self.named: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.ends: list[_Row] = []
        self.below: list[_Row] = []

    def at(self, segments: Sequence[str]) -> _Node:
        """The node that these lead to; it is made if it is not there."""
        node = self
        for segment in segments:
            if segment == "*":
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.named.setdefault(segment, _Node())
        return node

    def matching(self, segments: Sequence[str]) -> list[_Row]:
        """The rows whose patterns fit these segments of a path, in no order."""
        found: list[_Row] = []
        nodes, last = [self], len(segments) - 1
        for position, segment in enumerate(segments):
            further = []
            for node in nodes:
                if node.below and (segment or position < last):  # a slash at the end has nothing below it
                    found += node.below
                if (named := node.named.get(segment)) is not None:
                    further.append(named)
                if node.any is not None:
                    further.append(node.any)
            if not further:
                return found
            nodes = further
        for node in nodes:
            found += node.ends
        return found


class PathIndex:
    """Which row a path is of, if matched letter by letter.

    A row that opens nothing and does not end in `*` also matches with a slash at its end, or without the one that it
    has. A row that names that exact path comes first. A row that opens something does so where that opens nothing more
    and exempts from nothing: where a later row that opens, too, would hold in its place, or what no row names is open.

    Args:
        routes: the rows.
        paths: the path of each, as it is to be matched.
        open_to_all: whether nobody is asked who they are, so that what no row names is open.
    """

    def __init__(self, routes: Sequence[Route], paths: Sequence[str], *, open_to_all: bool = False) -> None:
        self._routes = routes
        self._paths = paths
        self._open_to_all = open_to_all
        self._exact: dict[str, list[int]] = {}
        self._patterns = _Node()
        self._has_patterns = False
        self._deepest = 0
        self._earliest = len(paths)  # of the patterns
        naming: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            naming.setdefault(path, []).append(index)
        for index, path in enumerate(paths):
            segments = path.split("/")
            if "*" not in segments:
                self._exact.setdefault(path, []).append(index)
                continue
            self._has_patterns = True
            self._deepest, self._earliest = max(self._deepest, len(segments)), min(self._earliest, index)
            if segments[-1] == "*":
                self._patterns.at(segments[:-1]).below.append((index, ()))
            else:
                self._patterns.at(segments).ends.append((index, ()))
                if not routes[index].opens:
                    other = _other(path)
                    self._patterns.at(other.split("/")).ends.append((index, tuple(naming.get(other, ()))))
        for index, path in enumerate(paths):
            if "*" not in path and not routes[index].opens and path != "/":
                self._exact.setdefault(_other(path), []).append(index)
        self._opening = self._of_opening_rows(paths, naming)

    def _of_opening_rows(self, paths: Sequence[str], naming: Mapping[str, list[int]]) -> _Node | None:
        """The rows that open something, with a slash more or less than they say; None if there are none."""
        found = None
        for index, path in enumerate(paths):
            if self._routes[index].opens and path != "/" and not path.endswith("/*"):
                found = found or _Node()
                other = _other(path)
                found.at(other.split("/")).ends.append((index, tuple(naming.get(other, ()))))
                self._deepest = max(self._deepest, other.count("/") + 1)
        return found

    def first(self, path: str, method: str, *, closed: bool = False) -> int:
        """The index of the first row that holds for a path and a method, in upper case; `NO_ROW` if there is none.

        With `closed`, rows that open something are passed over.
        """
        row = self._named(path, method, closed=closed)
        if self._opening is None or closed or not self._is_open(row):
            return row
        if row != NO_ROW and self._paths[row] == path:
            return row
        opening = self._best(self._opening, path, method, closed=False)
        if opening == NO_ROW or NO_ROW < row < opening or not self._asks_no_less(opening, row):
            return row
        return opening

    def _is_open(self, row: int) -> bool:
        """Whether strangers are let in here: a row that does not say who holds for is as what no row names."""
        if row == NO_ROW:
            return self._open_to_all
        route = self._routes[row]
        return route.opens or (self._open_to_all and route.auth is None and not (route.scopes or route.any_scopes))

    def _asks_no_less(self, opening: int, row: int) -> bool:
        """Whether nothing is to be gained by a slash, which leads to a row that opens something: no exemption.

        A row without limits of its own has the default ones, as what no row names has.
        """
        here, csrf, limits = self._routes[opening], True, None
        if row != NO_ROW:
            csrf, limits = self._routes[row].csrf, self._routes[row].limits
        if csrf and not here.csrf:
            return False
        return holds_limits(here.limits) or here.limits == limits or (limits is not None and not holds_limits(limits))

    def _named(self, path: str, method: str, *, closed: bool) -> int:
        """The first row that holds whatever is open."""
        best = NO_ROW
        for index in self._exact.get(path, ()):
            if self._takes(index, method, closed):
                best = index
                break
        if self._has_patterns and not NO_ROW < best < self._earliest:
            pattern = self._best(self._patterns, path, method, closed=closed)
            if pattern != NO_ROW and (best == NO_ROW or pattern < best):
                return pattern
        return best

    def _best(self, patterns: _Node, path: str, method: str, *, closed: bool) -> int:
        """The first row in this tree that holds."""
        # No more segments are told apart than patterns and their slashes have, however many a client sends.
        for index, named_by in sorted(patterns.matching(path.split("/", self._deepest + 1))):
            if self._takes(index, method, closed) and not any(self._takes(other, method, closed) for other in named_by):
                return index
        return NO_ROW

    def _takes(self, index: int, method: str, closed: bool) -> bool:
        route = self._routes[index]
        return not (closed and route.opens) and route.takes(method)


def _other(path: str) -> str:
    """The path with a slash at its end, or without the one that it has."""
    return path.removesuffix("/") if path.endswith("/") else f"{path}/"
