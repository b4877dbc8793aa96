"""A model of a device: what it takes for configurations that it has not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from layers.metrics import MODELLED
from service.database.json_columns import PredictedFigure
from service.scheduling.device_model.calibrated import CalibratedModel, ModelErrors, Prediction
from service.scheduling.device_model.features import Described, Encoder
from service.scheduling.device_model.measured import FEWEST_ROWS, MeasuredTrial, with_metric
from service.sweeps.catalog import schemas as catalog_schemas

CERTAIN = 0.99
"""How sure it has to be that a limit is broken before anything is left out for it."""


@dataclass(frozen=True, slots=True)
class _Quantity:
    encoder: Encoder
    model: CalibratedModel


class DeviceModel:
    """The quantities of one target, each fitted when it is first asked for."""

    def __init__(self, trials: Sequence[MeasuredTrial]) -> None:
        self._trials = trials
        self._fitted: dict[str, _Quantity | None] = {}

    @property
    def rows(self) -> int:
        return len(self._trials)

    def knows(self, metric: str, described: Described) -> bool:
        """Whether it can say something of the metric for this configuration."""
        quantity = self._of(metric)
        return quantity is not None and quantity.encoder.knows(described)

    def predict(self, metric: str, described: Sequence[Described]) -> Prediction | None:
        """Of configurations that it `knows`; None if too little was measured."""
        quantity = self._of(metric)
        return None if quantity is None else quantity.model.predict(quantity.encoder.encode(described))

    def least(self, metric: str, described: Sequence[Described], level: float = CERTAIN) -> NDArray[np.float64] | None:
        """Values that are reached with a probability of at least `level`; None if too little was measured."""
        quantity, prediction = self._of(metric), self.predict(metric, described)
        if quantity is None or prediction is None:
            return None
        return prediction.below(quantity.model.one_sided(level))

    def between(self, metric: str, described: Described, level: float = CERTAIN) -> PredictedFigure | None:
        """The metric of one configuration, with a value that it exceeds with a probability of at least `level`, and one
        that it stays below; None of a configuration that it does not know."""
        quantity = self._of(metric)
        if quantity is None or not quantity.encoder.knows(described):
            return None
        prediction = quantity.model.predict(quantity.encoder.encode([described]))
        reach = quantity.model.one_sided(level)
        low, high = float(prediction.below(reach)[0]), float(prediction.above(reach)[0])
        return {"median": float(prediction.medians[0]), "low": low, "high": high}

    def interval(self, metric: str, prediction: Prediction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The 90 % intervals of a prediction of the metric."""
        quantity = self._of(metric)
        assert quantity is not None, "what was predicted has a model"
        reach = quantity.model.two_sided()
        return prediction.below(reach), prediction.above(reach)

    def errors(self, metric: str) -> ModelErrors | None:
        """How well it predicts what was measured; None if too little was."""
        quantity = self._of(metric)
        return None if quantity is None else quantity.model.errors(CERTAIN)

    def _of(self, metric: str) -> _Quantity | None:
        if metric not in self._fitted:
            self._fitted[metric] = self._fit(metric)
        return self._fitted[metric]

    def _fit(self, metric: str) -> _Quantity | None:
        trials = with_metric(self._trials, metric)
        if len(trials) < FEWEST_ROWS:
            return None
        described = [trial.described for trial in trials]
        encoder = Encoder.of(described)
        values = np.array([trial.metrics[metric] for trial in trials], dtype=np.float64)
        return _Quantity(encoder, CalibratedModel(encoder.encode(described), values))


in_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")
"""Decorates what fits models: beside other work, threads of such small products wait for each other for a minute."""


@in_one_thread
def describe_model(target: str, trials: Sequence[MeasuredTrial]) -> catalog_schemas.DeviceModel:
    """How well the target's quantities are predicted. It takes a second or two."""
    model = DeviceModel(trials)
    found = {metric: errors for metric in MODELLED if (errors := model.errors(metric)) is not None}
    return catalog_schemas.DeviceModel(
        target=target,
        trials=model.rows,
        fewest_trials=FEWEST_ROWS,
        quantities=[
            catalog_schemas.QuantityModel(
                metric=metric,
                trials=errors.rows,
                error_share=errors.error_share,
                covered_share=errors.covered_share,
                false_rejections=errors.false_rejections,
                rejections=errors.rejections,
            )
            for metric, errors in found.items()
        ],
    )
