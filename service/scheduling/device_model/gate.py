"""What a model of a device spares a sweep: points that it is all but certain to break a constraint with, and builds
before the training of those that are all but certain to keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from layers.expressions.constraints import Constraint
from layers.metrics import MODELLED, STATIC
from layers.space.document import Rejection
from service.database.json_columns import PredictedHardware
from service.leases.feasibility import named_values
from service.scheduling.device_model.device_model import DeviceModel
from service.scheduling.device_model.early_figures import EarlyFigures
from service.scheduling.device_model.features import Described, describe
from service.scheduling.device_model.measured import FEWEST_ROWS, MOST_ROWS, MeasuredTrial
from service.sweeps.device_notes import modelled_metric

if TYPE_CHECKING:
    from service.scheduling.proposals import Point

BUILT_TO_CHECK = 20
"""Of one in so many points nothing is spared: it is built first, which shows whether the model is right."""
_GROWTH = 1.5
"""The model is fitted anew when so many times as many trials were measured."""


class HardwareGate:
    """What one sweep is spared. It depends on the trials it is given, in their order, and on nothing else."""

    def __init__(
        self,
        constraints: Sequence[Constraint],
        base: Sequence[MeasuredTrial],
        own: Sequence[MeasuredTrial],
        early: EarlyFigures | None = None,
    ) -> None:
        """`base`: what was measured when the sweep started; `own`: its trials, as they were told. Without constraints
        nothing is left out; without `early` everything is built as the sweep's order says."""
        self._judged = [(constraint, metric) for constraint in constraints if (metric := modelled_metric(constraint))]
        self._early = early
        self.base_ids = list(dict.fromkeys(trial.id for trial in base))
        self._trials = [*base, *own]
        self._expected: dict[str, Described] = {}
        self._fitted = 0
        self._model = DeviceModel([])
        self._threads = ThreadpoolController()
        self._refit()

    @property
    def is_open(self) -> bool:
        """Whether it spares nothing, whatever is measured."""
        return not self._judged and self._early is None

    def expect(self, trial_id: str, point: Point) -> None:
        """A trial was made of the point: its figures will be told."""
        if not self.is_open:
            self.expect_described(trial_id, _described(point, point.static_metrics()))

    def expect_described(self, trial_id: str, described: Described) -> None:
        """The same of a point that was described before."""
        self._expected[trial_id] = described

    def tell(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """What a trial has shown, whatever became of it."""
        described = self._expected.pop(trial_id, None)
        if described is not None and any(metric in metrics for metric in MODELLED):
            self._trials.append(MeasuredTrial(trial_id, described, metrics))
            self._refit()

    def judge(self, point: Point) -> Rejection | None:
        """Why the point is left out; None if it may be built."""
        if not self._judged or not self._fitted or _is_checked(point):
            return None
        static = point.static_metrics()
        described, values = _described(point, static), named_values(point.configuration, static)
        # Sums of several threads round otherwise, by how many there are.
        with self._threads.limit(limits=1, user_api="blas"):
            for constraint, metric in self._judged:
                least = self._model.least(metric, [described]) if self._model.knows(metric, described) else None
                if least is None:
                    continue
                value = float(least[0])
                broken = constraint.violation({**values, metric: value})
                beyond = constraint.violation({**values, metric: 2 * value})
                # A bound from below is not broken by what is larger still.
                if broken is not None and beyond is not None and 0 < broken < beyond:
                    message = f"{constraint.text} is broken: {metric} is at least {value:.4g} with a certainty of 99 %"
                    return Rejection("predicted", message, broken)
        return None

    def predict(self, point: Point) -> PredictedHardware | None:
        """What stands in for a build of the point before its training; None if it is to be built."""
        if self._early is None or not self._fitted or _is_checked(point):
            return None
        static = point.static_metrics()
        with self._threads.limit(limits=1, user_api="blas"):
            described = _described(point, static)
            return self._early.predict(self._model, described, named_values(point.configuration, static))

    def _refit(self) -> None:
        count = FEWEST_ROWS
        while count * _GROWTH <= len(self._trials):
            count = int(count * _GROWTH)
        if len(self._trials) >= FEWEST_ROWS and count != self._fitted:
            self._fitted = count
            self._model = DeviceModel(self._trials[:count][-MOST_ROWS:])


def _described(point: Point, static: Mapping[str, float]) -> Described:
    return describe(point.configuration, {name: static[name] for name in STATIC})


def _is_checked(point: Point) -> bool:
    return int(point.hash[:8], 16) % BUILT_TO_CHECK == 0
