"""What is asked of the hardware before a training, and whether a model of the device answers it.

A trial is built before its training so that a broken limit ends it untrained, and so that a pruner knows its latency.
If the limits are all but certain to be kept, and the figures that a pruner compares are all but known, neither is
worth a build: the trial is built and measured once, after its training, and judged by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.expressions.constraints import Constraint
from layers.metrics import MODELLED, metric
from layers.parameter import Scalar
from service.common.formatting import label
from service.common.formatting import metric as with_unit
from service.database.json_columns import PredictedFigure, PredictedHardware
from service.leases.phases import is_hardware_first
from service.pruning.choice import NONE
from service.scheduling.device_model.device_model import CERTAIN, DeviceModel
from service.scheduling.device_model.features import Described
from service.scheduling.sweep_state import SweepFacts
from service.sweeps.device_notes import modelled_metric

NARROW = 1.2
"""The ends of an interval differ by less than this factor if a pruner may compare a trial by it."""


@dataclass(frozen=True, slots=True)
class EarlyFigures:
    """The questions of one sweep."""

    limits: Sequence[tuple[Constraint, str]]
    """Its constraints on the hardware, each with the quantity that it names."""
    compared: Sequence[str]
    """Its objectives that are measured, if a pruner compares trials by them."""

    @classmethod
    def of(cls, facts: SweepFacts) -> EarlyFigures | None:
        """None if nothing is asked, the document fixes the order, or a model cannot say all of it."""
        document = facts.document
        constraints = [each for each in document.constraints if each.stage == "hardware"]
        objectives = tuple(facts.objectives)
        wish, pruner = document.search["hardware_first"], document.search.get("pruner")
        texts = tuple(each.text for each in document.constraints)
        if wish != "auto" or not is_hardware_first(document.task, wish, texts, pruner, objectives):
            return None
        is_pruned = facts.pruner != NONE
        compared = [each for each in objectives if is_pruned and metric(each).stage == "hardware"]
        limits = [(each, quantity) for each in constraints if (quantity := modelled_metric(each))]
        is_answerable = len(limits) == len(constraints) and set(compared) <= set(MODELLED)
        if document.task == "probe" or not is_answerable or not (limits or compared):
            return None
        return cls(limits, compared)

    def predict(
        self, model: DeviceModel, described: Described, values: Mapping[str, Scalar]
    ) -> PredictedHardware | None:
        """What is predicted of a configuration; None if a build has to say it.

        `values`: its parameters and static metrics by the names that constraints use. All limits together are kept with
        a probability of `CERTAIN`.
        """
        level = 1 - (1 - CERTAIN) / max(len(self.limits), 1)
        figures: dict[str, PredictedFigure] = {}
        for name in dict.fromkeys([*(quantity for _, quantity in self.limits), *self.compared]):
            figure = model.between(name, described, level)
            if figure is None:
                return None
            figures[name] = figure
        is_clear = all(_keeps(limit, quantity, figures[quantity], values) for limit, quantity in self.limits)
        if not is_clear or any(not _is_narrow(figures[each]) for each in self.compared):
            return None
        return {"figures": figures, "reason": self._reason(figures)}

    def _reason(self, figures: Mapping[str, PredictedFigure]) -> str:
        texts: list[str] = []
        for name, figure in figures.items():
            kept = [limit.text for limit, quantity in self.limits if quantity == name]
            low, high = with_unit(name, figure["low"]), with_unit(name, figure["high"])
            keeps = f", which keeps {' and '.join(kept)}" if kept else ""
            texts.append(f"{label(name)} is predicted at {low} to {high}{keeps}")
        return f"no build is needed before its training: {'; '.join(texts)}"


def _keeps(limit: Constraint, quantity: str, figure: PredictedFigure, values: Mapping[str, Scalar]) -> bool:
    """Whether the limit is kept all over the interval. One that names a parameter that is absent limits nothing."""
    found = [limit.violation({**values, quantity: at}) for at in (figure["low"], figure["median"], figure["high"])]
    return all(violation is None or violation <= 0 for violation in found)


def _is_narrow(figure: PredictedFigure) -> bool:
    return figure["high"] <= NARROW * figure["low"]
