"""The scheduler: the leader of sweeps whose points Optuna suggests."""

from __future__ import annotations

from collections.abc import Sequence

from service.common.notifications import Notifications
from service.database.models import EarlierTrial
from service.database.sessions import Database
from service.pruning.choice import objective_of_training
from service.scheduling.leader import Leader
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.proposals import total_violation
from service.scheduling.repository import StoredSweep
from service.scheduling.sampler_pool import SamplerPool
from service.scheduling.samplers.random_study import RandomStudy
from service.scheduling.studies import OWN_ATTRIBUTES, EarlierResult, Study, StudyArguments
from service.scheduling.sweep_scheduler import SweepScheduler
from service.scheduling.sweep_state import SweepFacts
from service.settings import Settings
from service.sweeps import transfer
from service.sweeps.sampling import LEARNS_NOTHING, population_size

OWN_PROCESS_ASKS = 32
"""From so many asks on, a sampler that learns computes in another process: requests then wait for no suggestion."""
MAKE_SECONDS = 0.01
"""A study that is built again from many asks is given so much more time for each."""


class Scheduler(Leader):
    """Leads sweeps whose points Optuna suggests."""

    def __init__(self, database: Database, notifications: Notifications, settings: Settings) -> None:
        super().__init__(database, notifications, settings)
        self._samplers = SamplerPool(settings.sampler_processes, settings.sampler_seconds)

    def make_study(self, loaded: StoredSweep) -> Study:
        sweep_id = loaded.facts.id
        earlier = self._database.read(lambda session: transfer.earlier_trials(session, sweep_id))
        facts = loaded.facts
        if facts.sampler == "random" and RandomStudy.suits(facts.document.space):
            return RandomStudy(facts.document.space, seed=facts.document.search["seed"], past=loaded.past)
        # What it starts from takes as long to model as asks of its own.
        if not self._needs_process(loaded.facts.sampler, len(loaded.past) + len(earlier)):
            return optuna_study(loaded, earlier)
        seconds = self._settings.sampler_seconds + MAKE_SECONDS * len(loaded.past)
        study = self._samplers.study(make_seconds=seconds, **_arguments(loaded, earlier))
        # Afterwards: a process without a study is warm, and this study may have taken it.
        self._samplers.close_idle()
        return study

    def has_outgrown(self, scheduler: SweepScheduler) -> bool:
        return isinstance(scheduler.study, OptunaStudy) and self._needs_process(
            scheduler.facts.sampler, scheduler.study.asked
        )

    def interrupt(self) -> None:
        self._samplers.close()

    def _needs_process(self, sampler: str, asked: int) -> bool:
        return self.is_running and sampler not in LEARNS_NOTHING and asked >= OWN_PROCESS_ASKS


def optuna_study(loaded: StoredSweep, earlier: Sequence[EarlierTrial] = ()) -> OptunaStudy:
    """The study that a sweep's rows describe, in this process. `earlier`: the trials that it starts from."""
    return OptunaStudy(**_arguments(loaded, earlier))


def _arguments(loaded: StoredSweep, earlier: Sequence[EarlierTrial]) -> StudyArguments:
    facts = loaded.facts
    return {
        "space": facts.document.space,
        "goals": facts.goals,
        "sampler": facts.sampler,
        "seed": facts.document.search["seed"],
        "population": population_size(facts.document.budget["trials"]),
        "past": loaded.past,
        "uncertain": _place_of_training(facts),
        "earlier": [_earlier_result(trial, facts) for trial in earlier],
        "attributes": {name: value for name, value in loaded.attributes.items() if not name.startswith(OWN_ATTRIBUTES)},
    }


def _place_of_training(facts: SweepFacts) -> int | None:
    objective = objective_of_training(facts.document.objectives)
    return None if objective is None else facts.document.objectives.index(objective)


def _earlier_result(trial: EarlierTrial, facts: SweepFacts) -> EarlierResult:
    values = tuple(float(trial.metrics[objective["metric"]]) for objective in facts.document.objectives)
    return EarlierResult(trial.parameters, values, total_violation(trial.violations.values()))
