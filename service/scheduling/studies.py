"""What a sampler suggested and what it is told: the plain records between the rows, the points and Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

from layers.metrics import Goal
from layers.parameter import Scalar
from layers.space.space import Space
from layersweep.json_values import JsonObject
from service.common.states import TrialState
from service.database.json_columns import Distribution, Told

Attributes = JsonObject
"""What a sampler keeps on its study or on a trial of it, by names of its own."""

OWN_ATTRIBUTES = "layersweep:"
"""How the names begin of what is kept beside a study's own attributes."""

NO_CONSTRAINT_VIOLATION = -1.0
"""The violation of a point that nothing constrains: clearly kept, so that a model of it does not see a boundary."""


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a sampler learns of one of its suggestions.

    `complete` has `values` in the order of the objectives; `infeasible` was not measured to the end because it breaks a
    rule or a constraint; `pruned` was stopped early, and has `values` if a pruner expected some; `failed` teaches
    nothing. `spread` is the standard deviation of the value that the training decides, if it is known: of one that a
    pruner expected, or of a mean over several trainings. `violation` says how far the constraints are broken (<= 0: all
    are kept).
    """

    state: TrialState
    values: tuple[float, ...] | None = None
    violation: float = NO_CONSTRAINT_VIOLATION
    spread: float | None = None

    def to_row(self) -> Told:
        """As it lies in `Ask.told`."""
        row: Told = {
            "state": self.state,
            "values": None if self.values is None else list(self.values),
            "constraints": {} if self.state is TrialState.FAILED else {"violation": self.violation},
        }
        return row if self.spread is None else {**row, "spread": self.spread}

    @staticmethod
    def from_row(row: Told) -> TrialResult:
        """The inverse of `to_row`."""
        values = row["values"]
        return TrialResult(
            TrialState(row["state"]),
            None if values is None else tuple(float(value) for value in values),
            float(row["constraints"].get("violation", NO_CONSTRAINT_VIOLATION)),
            row.get("spread"),
        )


FAILED = TrialResult(TrialState.FAILED)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One ask of a study. `suggestions` and `distributions` are in the sampler's own encoding, JSON-able."""

    ask: int
    chosen: dict[str, Scalar]
    suggestions: dict[str, Scalar]
    distributions: dict[str, Distribution]
    system_attrs: Attributes


@dataclass(frozen=True, slots=True)
class PastAsk:
    """An ask as its row keeps it, for rebuilding a study. `result` None is in flight."""

    ask: int
    suggestions: Mapping[str, Scalar]
    distributions: Mapping[str, Distribution]
    system_attrs: Attributes
    result: TrialResult | None


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """A complete trial of an earlier sweep: its values for this sweep's open parameters and objectives, as far as it
    had them. Values may lie outside of this sweep's space."""

    parameters: Mapping[str, Scalar]
    values: tuple[float, ...]
    violation: float
    """Of this sweep's constraints."""


class StudyArguments(TypedDict):
    """What a study is made of, in this process or another."""

    space: Space
    goals: Sequence[Goal]
    sampler: str
    seed: int
    population: int
    past: NotRequired[Iterable[PastAsk]]
    attributes: NotRequired[Attributes]
    earlier: NotRequired[Sequence[EarlierResult]]
    uncertain: NotRequired[int | None]
    """The place of the objective that a result's `spread` is of."""


class Study(Protocol):
    """A sampler with its history. The n-th `ask` depends only on the seed, n, and the asks and tells before it."""

    @property
    def asked(self) -> int:
        """Asks so far: the number of the next one."""
        ...

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        """Suggest the next point; if `chosen` is given, the sampler learns that this point is tried instead."""
        ...

    def tell(self, ask: int, result: TrialResult) -> None:
        """Say what became of an ask. Each ask is told once."""
        ...

    def take_changed_attributes(self) -> Attributes:
        """Return the study's attributes that are new or different since the last call."""
        ...
