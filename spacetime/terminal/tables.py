"""Tables that fit: no cell is ever cut, whatever the width.

Numbers stand whole; words fold where it is narrow. Where even that is too wide, the columns go on
in a second table, which repeats the columns that say what a row is of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_GAP = 2  # cells between two columns
_LEAST = 14  # cells of a column of words before columns go to the next table
_MOST_KEYS = 4


@dataclass(slots=True)
class FittedTable:
    """Rows of text under heads; `words` are the heads of columns to the left, which may fold.

    `styles`: of each row, such as "red".
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    title: str | None = None
    styles: Sequence[str] = ()
    caption: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One table, or as many as the width takes."""
        for number, part in enumerate(self._parts(options.max_width)):
            yield Text("")
            yield self._table(part, options.max_width, title=None if number else self.title)
        if self.caption:
            yield Text(self.caption, style="dim")

    def _parts(self, width: int) -> Iterable[Sequence[int]]:
        """The columns of each table, by their numbers."""
        keys = self._keys()
        rest = [n for n in range(len(self.heads)) if n not in keys]
        part = [*keys]
        for number in rest:
            if len(part) > len(keys) and self._wide([*part, number]) > width:
                yield part
                part = [*keys]
            part.append(number)
        yield part

    def _keys(self) -> Sequence[int]:
        """The fewest first columns that tell all rows apart."""
        for count in range(1, min(_MOST_KEYS, len(self.heads) - 1) + 1):
            told = {tuple(islice(row, count)) for row in self.rows}
            if len(told) == len(self.rows):
                return range(count)
        return range(1)

    def _wide(self, part: Sequence[int]) -> int:
        return sum(map(self._least, part)) + _GAP * (len(part) - 1)

    def _least(self, number: int) -> int:
        natural = self._natural(number)
        return min(natural, _LEAST) if self.heads[number] in self.words else natural

    def _natural(self, number: int) -> int:
        cells = [self.heads[number], *(row[number] for row in self.rows)]
        return max(cell_len(line) for cell in cells for line in (cell.splitlines() or [""]))

    def _table(self, part: Sequence[int], width: int, *, title: str | None) -> Table:
        spare = width - self._wide(part)
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0),
            title=title, title_justify="left",
        )  # fmt: skip
        for number in part:
            words = self.heads[number] in self.words
            least = self._least(number)
            wide = least + max(0, min(spare, self._natural(number) - least))
            spare -= wide - least
            table.add_column(
                self.heads[number], width=wide, overflow="fold",
                justify="left" if words else "right",
            )  # fmt: skip
        for number, row in enumerate(self.rows):
            style = self.styles[number] if number < len(self.styles) else ""
            table.add_row(*(Text(row[column]) for column in part), style=style)
        return table
