"""Rows by their paths, ready to be matched: exact ones in a dict, so that a thousand of them cost as much as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.policy.routes import Route

NO_ROW = -1
"""The answer where no row matches."""


class PathIndex:
    """Which row a path is of, if matched letter by letter.

    A row that opens nothing and does not end in `*` also matches with a slash at its end, or without the one that it
    has. A row that names that exact path comes first.

    Args:
        routes: the rows.
        paths: the path of each, as it is to be matched.
    """

    def __init__(self, routes: Sequence[Route], paths: Sequence[str]) -> None:
        self._routes = routes
        self._exact: dict[str, list[int]] = {}
        self._patterns: list[tuple[int, tuple[str, ...], bool, tuple[int, ...]]] = []
        naming: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            naming.setdefault(path, []).append(index)
        for index, path in enumerate(paths):
            segments = tuple(path.split("/"))
            if "*" not in segments:
                self._exact.setdefault(path, []).append(index)
            elif segments[-1] == "*":
                self._patterns.append((index, segments[:-1], True, ()))
            else:
                self._patterns.append((index, segments, False, ()))
                if not routes[index].opens:
                    other = _other(path)
                    self._patterns.append((index, tuple(other.split("/")), False, tuple(naming.get(other, ()))))
        for index, path in enumerate(paths):
            if "*" not in path and not routes[index].opens and path != "/":
                self._exact.setdefault(_other(path), []).append(index)

    def first(self, path: str, method: str, *, closed: bool = False) -> int:
        """The index of the first row that holds for a path and a method, in upper case; `NO_ROW` if there is none.

        With `closed`, rows that open something are passed over.
        """
        best = NO_ROW
        for index in self._exact.get(path, ()):
            if self._takes(index, method, closed):
                best = index
                break
        if self._patterns:
            segments = path.split("/")
            for index, pattern, open_ended, named_by in self._patterns:
                if 0 <= best < index:
                    break
                if (
                    _fits(segments, pattern, open_ended)
                    and self._takes(index, method, closed)
                    and not any(self._takes(other, method, closed) for other in named_by)
                ):
                    return index
        return best

    def _takes(self, index: int, method: str, closed: bool) -> bool:
        route = self._routes[index]
        return not (closed and route.opens) and route.takes(method)


def _other(path: str) -> str:
    """The path with a slash at its end, or without the one that it has."""
    return path.removesuffix("/") if path.endswith("/") else f"{path}/"


def _fits(segments: list[str], pattern: tuple[str, ...], open_ended: bool) -> bool:
    count = len(pattern)
    if open_ended:
        if len(segments) <= count or (len(segments) == count + 1 and not segments[-1]):
            return False
    elif len(segments) != count:
        return False
    return all(want in ("*", have) for want, have in zip(pattern, segments, strict=False))
