"""Tables that can be printed and written into a page: the same for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.interval import FEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from benchmarks.figures import Figure, Suite
    from benchmarks.interval import Interval


NARROW = 12
"""Letters that a column of words has at the least, if its cells are as long; and never fewer than its longest word."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table.

    Attributes:
        title: above it.
        left: headings of the columns of words.
        right: headings of the columns of figures.
        rows: a text for every column.
        caption: below it.
        bold: the texts whose rows stand out, by their first column.
    """

    title: str
    left: Sequence[str]
    right: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    bold: frozenset[str] = frozenset()

    def rich(self) -> Table:
        """For a terminal."""
        made = table(self.title, self.left, self.right, self.caption)
        for row in self.rows:
            add(made, *row, style="bold" if row[0] in self.bold else None)
        return made

    def markdown(self) -> str:
        """For a page."""
        lines = [
            f"**{self.title}**", "", _line((*self.left, *self.right)),
            _line([*("---" for _ in self.left), *("---:" for _ in self.right)]),
        ]  # fmt: skip
        lines += [_line([f"**{text}**" if row[0] in self.bold and text else text for text in row]) for row in self.rows]
        if self.caption:
            lines += ["", self.caption]
        return "\n".join(lines)


class Fitting(Table):
    """A table that loses nothing where it has little room.

    First headings and words are written in several lines, never figures; where even that has no room, every row is
    written as a list: what it is of, and below it its cells with their headings.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Whichever there is room for."""
        widths = self._widths(options.max_width - len(self.columns) - 1)
        if widths is None:
            yield from self._listed()
            return
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _widths(self, room: int) -> list[int] | None:
        """Of the columns, with so much room for all of them; None if it is too little."""
        widths, least = [], []
        for column in self.columns:
            heading, *cells = [str(cell) for cell in (column.header, *column.cells)]
            figures = column.justify == "right"
            longest = max(map(cell_len, (heading, *cells)))
            words = " ".join([heading] if figures else [heading, *cells]).split()
            whole = max(map(cell_len, cells), default=0) if figures else min(longest, NARROW)
            widths.append(longest + 2)
            least.append(max(whole, *map(cell_len, words), 0) + 2)
        while sum(widths) > room:
            widest = max(range(len(widths)), key=lambda place: (widths[place] > least[place], widths[place]))
            if widths[widest] == least[widest]:
                return None
            widths[widest] -= 1
        return [width - 2 for width in widths]

    def _listed(self) -> Iterator[RenderableType]:
        yield Text.assemble((str(self.title), "bold"))
        headings = [str(column.header) for column in self.columns]
        for row, cells in zip(self.rows, zip(*(column.cells for column in self.columns), strict=True), strict=True):
            told = [
                f"{heading}: {cell}" if heading else str(cell)
                for heading, cell in zip(headings, cells, strict=True)
                if str(cell)
            ]
            yield Text(told[0], style=row.style or "")
            yield Padding(Text("; ".join(told[1:]), style=row.style or ""), (0, 0, 0, 2))
        if self.caption:
            yield Text(str(self.caption), style="table.caption")


def table(title: str, left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    """An empty table for a terminal: its columns of words, and its columns of figures. None of it is markup."""
    made = Fitting(title=Text(title), title_justify="left", title_style="bold")
    made.caption, made.caption_justify = Text(caption) if caption else None, "left"
    for heading in left:
        made.add_column(Text(heading), overflow="fold")
    for heading in right:
        made.add_column(Text(heading), justify="right")
    return made


def add(made: Table, *cells: str, style: str | None = None) -> None:
    """Add a row of texts as they are: a hint such as `pip install 'asgi-guard[bench]'` is no markup."""
    made.add_row(*map(Text, cells), style=style)


def say(console: Console, text: str, *, name: str = "") -> None:
    """Print a text as it is, behind a name that stands out."""
    console.print(Text.assemble((name, "bold"), text))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def number(value: float) -> str:
    """With three figures or so, however large."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or not size else 3}f}"


def plain(value: Interval | None) -> str:
    """The median."""
    return "" if value is None else number(value.median)


def spread(value: Interval | None, shown: Callable[[float], str] = number) -> str:
    """The interval, where it was taken more than once."""
    return "" if value is None or value.rounds == 1 else f"{shown(value.low)} to {shown(value.high)}"


def both(value: Interval | None) -> str:
    """The median, and its interval behind it, where it was taken more than once."""
    if value is None or value.rounds == 1:
        return plain(value)
    return f"{number(value.median)} ({spread(value)})"


def ends(values: Iterable[Interval | None]) -> str:
    """What the intervals of a table are, in words; none where nothing was taken more than once."""
    rounds = {value.rounds for value in values if value is not None and value.rounds > 1}
    few, median = sorted(each for each in rounds if each < FEW), "the 95 % interval of the median"
    if not few:
        return median if rounds else ""
    least = f"the least and the greatest of {' or '.join(map(str, few))} rounds"
    return f"{least}; of more, {median}" if max(rounds) >= FEW else least


def warned(values: Iterable[Interval | None]) -> str:
    """A sentence for a caption that says what the intervals of few rounds are; none where there are none such."""
    told = ends(values)
    return f"Interval: {told}." if told.startswith("the least") else ""


def grid(
    suite: Suite, of: Sequence[str], columns: Sequence[str], shown: Callable[[Interval | None], str] = plain
) -> list[list[str]]:
    """A row for each name that goes on from `of`, with the figures of these names in it."""
    return [
        [row, *(shown(suite.find(*of, row, column)) for column in columns)]
        for row in suite.names(len(of), *of)
        if any(suite.find(*of, row, column) for column in columns)
    ]


def asked(figures: Sequence[Figure]) -> Sheet | None:
    """What the project asks of the figures, and whether they are there."""
    rows = [
        [
            ": ".join(figure.of), f"{both(figure.value)} {figure.unit}",
            f"{'>=' if figure.more else '<='} {number(figure.asked)}", figure.verdict,
        ]
        for figure in figures
        if figure.asked is not None
    ]  # fmt: skip
    caption = warned(figure.value for figure in figures if figure.asked is not None)
    return Sheet("What is asked", ("figure", "found", "asked", ""), (), rows, caption) if rows else None
