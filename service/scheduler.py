"""The scheduler: the leader of sweeps whose points Optuna suggests."""

from __future__ import annotations

from typing import Any

from service.leader import Leader
from service.led_sweep import OWN_ATTRIBUTES, LedSweep
from service.optuna_study import OptunaStudy
from service.sampler_process import SamplerProcess
from service.sampling import LEARNS_NOTHING, population_size
from service.schedules import Loaded
from service.studies import Study

OWN_PROCESS_ASKS = 32
"""From so many asks on, a sampler that learns computes in another process: requests then wait for no suggestion."""


class Scheduler(Leader):
    """Leads sweeps whose points Optuna suggests."""

    _process: SamplerProcess | None = None

    def make_study(self, loaded: Loaded) -> Study:
        if not self._needs_process(loaded.facts.sampler, len(loaded.past)):
            return optuna_study(loaded)
        if self._process is None:
            self._process = SamplerProcess()
        return self._process.study(**_arguments(loaded))

    def has_outgrown(self, led: LedSweep) -> bool:
        return isinstance(led.study, OptunaStudy) and self._needs_process(led.facts.sampler, led.study.asked)

    def stop(self) -> None:
        super().stop()
        if self._process is not None:
            self._process.close()
            self._process = None

    def _needs_process(self, sampler: str, asked: int) -> bool:
        return self.is_running and sampler not in LEARNS_NOTHING and asked >= OWN_PROCESS_ASKS


def optuna_study(loaded: Loaded) -> OptunaStudy:
    """The study that a sweep's rows describe, in this process."""
    return OptunaStudy(**_arguments(loaded))


def _arguments(loaded: Loaded) -> dict[str, Any]:
    facts = loaded.facts
    return {
        "space": facts.document.space,
        "goals": facts.goals,
        "sampler": facts.sampler,
        "seed": facts.document.search["seed"],
        "population": population_size(facts.document.budget["trials"]),
        "past": loaded.past,
        "attributes": {name: value for name, value in loaded.attributes.items() if not name.startswith(OWN_ATTRIBUTES)},
    }
