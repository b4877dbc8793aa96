"""The trials of a sweep in order, as the service ranks them, and as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, overload

from layersweep.errors import MissingDependencyError
from layersweep.records.sweeps import LeaderboardRow, Objective, Scalar
from layersweep.transport import PAGE_SIZE, QueryValue, Transport

if TYPE_CHECKING:
    import pandas

_OWN_COLUMNS = ("trial", "number", "state", "rank", "on_front", "feasible")


class Leaderboard(Sequence[LeaderboardRow]):
    """Rows of a leaderboard, best first unless sorted otherwise. Reads like a list.

        board = sweep.leaderboard()
        best = board[0]
        print(best["number"], best["metrics"]["validation_loss"])
        board.dataframe().plot.scatter("latency_ms_p50", "validation_loss")

    `objectives` are the sweep's, `total` counts the rows that the filter keeps, including those cut off by a limit.
    """

    def __init__(self, rows: Iterable[LeaderboardRow], objectives: list[Objective], total: int) -> None:
        self._rows = list(rows)
        self.objectives = objectives
        self.total = total

    @overload
    def __getitem__(self, index: int) -> LeaderboardRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[LeaderboardRow]: ...
    def __getitem__(self, index: int | slice) -> LeaderboardRow | list[LeaderboardRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        metrics = ", ".join(objective["metric"] for objective in self.objectives)
        return f"<Leaderboard: {len(self)} of {self.total} trial{'' if self.total == 1 else 's'} by {metrics}>"

    def dataframe(self) -> pandas.DataFrame:
        """One row a trial, indexed by its number; a column for each parameter and metric.

        Raises MissingDependencyError where pandas is not installed.
        """
        return dataframe(self._rows)


def read_leaderboard(
    transport: Transport,
    sweep_id: str,
    *,
    sort: str | None,
    state: str | None,
    feasible: bool | None,
    on_front: bool | None,
    limit: int | None,
) -> Leaderboard:
    """All pages of a sweep's leaderboard, or as many as hold `limit` rows."""
    path = f"/v1/sweeps/{sweep_id}/leaderboard"
    params: dict[str, QueryValue] = {
        "sort": sort,
        "state": state,
        "feasible": _flag(feasible),
        "on_front": _flag(on_front),
    }
    rows: list[LeaderboardRow] = []
    token: str | None = None
    while True:
        page_size = PAGE_SIZE if limit is None else max(1, min(PAGE_SIZE, limit - len(rows)))
        page = transport.page(path, params | {"page_size": page_size, "page_token": token})
        rows += page["items"]
        token = page["next_page_token"]
        if token is None or (limit is not None and len(rows) >= limit):
            return Leaderboard(rows if limit is None else rows[:limit], page["objectives"], page["total"])


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def dataframe(rows: Iterable[LeaderboardRow]) -> pandas.DataFrame:
    """One row a trial; a parameter and a metric of the same name are told apart as `parameters.x` and `metrics.x`."""
    try:
        import pandas
    except ImportError as problem:
        raise MissingDependencyError(
            "dataframe() needs pandas, which is not installed: pip install 'layersweep[pandas]'"
        ) from problem
    rows = list(rows)
    parameters = {name for row in rows for name in row["parameters"]}
    metrics = {name for row in rows for name in row["metrics"]}
    taken = (parameters & metrics) | set(_OWN_COLUMNS)

    def columns(section: str, values: Mapping[str, Scalar | None]) -> dict[str, Scalar | None]:
        return {f"{section}.{name}" if name in taken else name: value for name, value in values.items()}

    frame = pandas.DataFrame(
        [
            {name: row[name] for name in _OWN_COLUMNS}
            | columns("parameters", row["parameters"])
            | columns("metrics", row["metrics"])
            for row in rows
        ]
    )
    return frame.set_index("number") if rows else frame
