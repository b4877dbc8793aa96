"""Tables of a terminal that keep words whole, and leave out what matters least if it is narrow."""

from __future__ import annotations

from collections.abc import Container, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

MOST_WORD = 40
"""Columns that a word may take of a table: a longer one, such as a URL, is broken."""

LEAST_WRAPPED = 20
"""Columns of a terminal to which a column may be wrapped before another one is left out."""

_ANY_WIDTH = 10_000


class Listing:
    """A table that leaves out its least important columns if the terminal is too narrow for all of them.

    What is left is wrapped at spaces. Below the table stands what was left out.
    """

    def __init__(
        self,
        *names: str,
        whole: Container[str] = (),
        right: Container[str] = (),
        spare: Sequence[str] = (),
        wrapped: Container[str] = (),
    ) -> None:
        """`whole`: columns that are never wrapped; `right`: those that are set to the right; `spare`: those that may be
        left out, the least important first; `wrapped`: those that are wrapped before another one is left out."""
        self._names = names
        self._whole = whole
        self._right = right
        self._spare = [name for name in spare if name in names]
        self._wrapped = wrapped
        self._rows: list[tuple[str | Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: a text for each column."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it: what rich calls."""

        def fits(left_out: Sequence[str]) -> bool:
            table = self._table(left_out, self._wrapped)
            measured = Measurement.get(console, options.update(max_width=_ANY_WIDTH), table)
            return measured.maximum <= options.max_width

        left_out: list[str] = []
        for name in self._spare:
            if fits(left_out):
                break
            left_out.append(name)
        for name in reversed(left_out.copy()):
            # One that is small may have room if a larger one had none.
            if fits(rest := [other for other in left_out if other != name]):
                left_out = rest
        yield self._table(left_out)
        if left_out:
            names = ", ".join(name for name in self._names if name in left_out)
            yield Text(f"In a wider terminal, and in --json: {names}", style="dim")

    def _table(self, left_out: Container[str], wrapped: Container[str] = ()) -> Table:
        """The table without some columns; those `wrapped` are as narrow as they may become."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        places = [place for place, name in enumerate(self._names) if name not in left_out]
        for place in places:
            name = self._names[place]
            is_whole = name in self._whole
            narrowest = _narrowest([name, *(row[place] for row in self._rows)], is_whole=is_whole)
            table.add_column(
                name,
                overflow="fold",
                no_wrap=is_whole,
                min_width=narrowest,
                max_width=max(narrowest, LEAST_WRAPPED) if name in wrapped else None,
                justify="right" if name in self._right else "left",
            )
        for row in self._rows:
            table.add_row(*(row[place] for place in places))
        return table


def _narrowest(cells: Sequence[str | Text], *, is_whole: bool) -> int:
    """The columns of a terminal that no word of the cells, or no line, has to be broken in."""
    texts = [cell.plain if isinstance(cell, Text) else cell for cell in cells]
    if is_whole:
        return max((cell_len(line) for text in texts for line in text.splitlines()), default=1)
    return min(MOST_WORD, max((cell_len(word) for text in texts for word in text.split()), default=1))
