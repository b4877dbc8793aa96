"""The trials of a sweep in order, as the service ranks them, and as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, overload

from layersweep import notebook
from layersweep.errors import MissingDependencyError
from layersweep.records.noise import SweepNoise
from layersweep.records.sweeps import LeaderboardRow, Objective, Scalar, TrialState
from layersweep.transport import PAGE_SIZE, QueryValue, Transport

if TYPE_CHECKING:
    import pandas

_OWN_COLUMNS = ("trial", "number", "state", "rank", "on_front", "feasible")


Feasible: TypeAlias = bool | Literal["undecided"]
"""Which trials to keep: those that keep every constraint, that do not, or of which noise leaves that undecided."""


class RowOptions(TypedDict, total=False):
    """Filters of a leaderboard."""

    state: TrialState | Sequence[TrialState] | None
    feasible: Feasible | None
    on_front: bool | None
    where: str | Sequence[str]


class LeaderboardOptions(RowOptions, total=False):
    """What `Sweep.leaderboard` takes."""

    sort: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Filters of a leaderboard, as the API names them. Empty: all trials."""

    state: tuple[str, ...] = ()
    feasible: Feasible | None = None
    on_front: bool | None = None
    where: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        state: TrialState | Sequence[TrialState] | None = None,
        feasible: Feasible | None = None,
        on_front: bool | None = None,
        where: str | Sequence[str] = (),
    ) -> RowFilter:
        """From the arguments of `Sweep.leaderboard`."""
        return cls(several(state), feasible, on_front, several(where))

    def fields(self) -> dict[str, QueryValue]:
        """As parameters of a query."""
        return {
            "state": self.state or None,
            "feasible": _flag(self.feasible),
            "on_front": _flag(self.on_front),
            "where": self.where or None,
        }


def several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """One text, several, or none, as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())


class Leaderboard(Sequence[LeaderboardRow]):
    """Rows of a leaderboard, best first unless sorted otherwise. Reads like a list.

        board = sweep.leaderboard()
        best = board[0]
        print(best["number"], best["metrics"]["validation_loss"])
        board.dataframe().plot.scatter("latency_ms_p50", "validation_loss")

    `objectives` are the sweep's, `total` counts the rows that the filter keeps, including those cut off by a limit.
    `noise` says how noisy the sweep's measurements are; None of a service that does not say it. `summary_metrics` are
    the metrics that a summary shows, in order: the objectives alone of a service that does not say it.
    """

    def __init__(
        self,
        rows: Iterable[LeaderboardRow],
        objectives: list[Objective],
        total: int,
        noise: SweepNoise | None = None,
        summary_metrics: Sequence[str] = (),
    ) -> None:
        self._rows = list(rows)
        self.objectives = objectives
        self.total = total
        self.noise = noise
        self.summary_metrics = list(summary_metrics) or [objective["metric"] for objective in objectives]

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

    def _repr_html_(self) -> str:
        objectives = (objective["metric"] for objective in self.objectives)
        metrics = shown_metrics(self._rows, objectives, self.summary_metrics)
        return notebook.of_leaderboard(self._rows, metrics, self.total)

    def dataframe(self) -> pandas.DataFrame:
        """One row a trial, indexed by its number; a column for each parameter and metric.

        Raises MissingDependencyError if pandas is not installed.
        """
        return dataframe(self._rows)


def shown_metrics(rows: Sequence[LeaderboardRow], objectives: Iterable[str], summary: Iterable[str]) -> list[str]:
    """The objectives, then what else of a summary any row has."""
    known = {name for row in rows for name in row["metrics"]}
    return list(dict.fromkeys([*objectives, *(name for name in summary if name in known)]))


_EVERY_ROW = RowFilter()


def read_leaderboard(
    transport: Transport,
    sweep_id: str,
    *,
    sort: str | None = None,
    rows: RowFilter = _EVERY_ROW,
    limit: int | None = None,
) -> Leaderboard:
    """All pages of a sweep's leaderboard, or as many as hold `limit` rows."""
    path = f"/v1/sweeps/{sweep_id}/leaderboard"
    params = {"sort": sort, **rows.fields()}
    found: list[LeaderboardRow] = []
    token: str | None = None
    while True:
        page_size = PAGE_SIZE if limit is None else max(1, min(PAGE_SIZE, limit - len(found)))
        page = transport.page(path, params | {"page_size": page_size, "page_token": token})
        found += page["items"]
        token = page["next_page_token"]
        if token is None or (limit is not None and len(found) >= limit):
            rows_found = found if limit is None else found[:limit]
            summary = page.get("summary_metrics", ())
            return Leaderboard(rows_found, page["objectives"], page["total"], page.get("noise"), summary)


def _flag(value: Feasible | None) -> str | None:
    return None if value is None else str(value).lower()


def dataframe(rows: Iterable[LeaderboardRow]) -> pandas.DataFrame:
    """One row a trial; a parameter and a metric with the same name become `parameters.x` and `metrics.x`."""
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
