"""The scheduler: asks Optuna, tells it what became of trials, rebuilds it from rows. Only this file imports Optuna.

Our rows are the truth; a study is a cache of them in the memory of whoever leads the sweep.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from layers.base import Scalar
from layers.metrics import Goal
from layers.space import OpenParameter, Space
from service import idempotency, leadership, queue, reuse, schedules, sweeps, targets
from service.db import Database
from service.ids import new_id
from service.leadership import Fenced
from service.leading import OWN_ATTRIBUTES, FindSources, LedSweep, Verdict
from service.notifications import SCHEDULER, Notifications
from service.pareto import Ranking
from service.sampling import population_size
from service.schedules import Lead, Loaded
from service.settings import Settings
from service.studies import Attributes, PastAsk, Suggestion, Told

_log = logging.getLogger(__name__)

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# Penalties are infinite on purpose: the Gaussian process takes the worst value that it saw in their place.
warnings.filterwarnings("ignore", message="Clip non-finite values")

_LEARNS_FROM_COMPLETE_ONLY = ("gp", "nsga2")
"""Samplers that do not see a pruned trial: an infeasible point is told as complete, with penalty values."""


class Encoding:
    """How one open parameter is put to a sampler, and read back.

    Numeric choices go as an ordinal index, not as categories: it matters more to a search than which sampler it is.
    """

    def __init__(self, parameter: OpenParameter) -> None:
        self.name = parameter.name
        self._parameter = parameter
        self.distribution = _distribution(parameter)
        self.json: dict[str, Any] = json.loads(distribution_to_json(self.distribution))

    def suggest(self, trial: optuna.Trial) -> Any:
        """What the sampler suggests, in its own encoding."""
        distribution = self.distribution
        if isinstance(distribution, IntDistribution):
            return trial.suggest_int(
                self.name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        if isinstance(distribution, FloatDistribution):
            return trial.suggest_float(self.name, distribution.low, distribution.high, log=distribution.log)
        assert isinstance(distribution, CategoricalDistribution)
        return trial.suggest_categorical(self.name, distribution.choices)

    def decode(self, encoded: Any) -> Scalar:
        """The parameter's value."""
        parameter = self._parameter
        if parameter.kind == "values":
            return parameter.values[encoded] if parameter.ordinal else encoded
        if self._is_stepped_number:
            assert parameter.low is not None
            assert parameter.high is not None
            assert parameter.step is not None
            return parameter.canonical(min(parameter.low + encoded * parameter.step, parameter.high))
        return int(encoded) if parameter.kind == "integer" else float(encoded)

    def encode(self, value: Scalar) -> Any:
        """The inverse of `decode`."""
        parameter = self._parameter
        if parameter.kind == "values":
            return parameter.values.index(value) if parameter.ordinal else value
        if self._is_stepped_number:
            assert parameter.low is not None
            assert parameter.step is not None
            return round((float(value) - parameter.low) / parameter.step)
        return value

    @property
    def _is_stepped_number(self) -> bool:
        return self._parameter.kind == "number" and self._parameter.step is not None


def _distribution(parameter: OpenParameter) -> BaseDistribution:
    if parameter.kind == "values":
        return (
            IntDistribution(0, len(parameter.values) - 1)
            if parameter.ordinal
            else CategoricalDistribution(parameter.values)
        )
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.kind == "integer":
        return IntDistribution(
            int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=parameter.log
        )
    if parameter.size is not None:
        # As an index: a sampler's own steps come out as 0.30000000000000004 and would be another point.
        return IntDistribution(0, parameter.size - 1)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


class OptunaStudy:
    """A study in memory: `service.studies.Study` over Optuna.

    Every ask has a fresh sampler, seeded by the sweep's seed and the ask's number, so that nothing but the history
    decides what is suggested. Rebuilt from `past` and `attributes`, it goes on as if it had never stopped.
    """

    def __init__(
        self,
        space: Space,
        goals: Sequence[Goal],
        *,
        sampler: str,
        seed: int,
        population: int,
        past: Iterable[PastAsk] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._population = population
        self._encodings = {parameter.name: Encoding(parameter) for parameter in space.open}
        self._worst = [math.inf if goal == "minimize" else -math.inf for goal in goals]
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, directions=list(goals))
        self._attributes: Attributes = {}
        self.asked = 0
        for name, value in (attributes or {}).items():
            self._storage.set_study_system_attr(self._study._study_id, name, value)
            self._attributes[name] = value
        for ask in past:
            self._restore(ask)

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        number = self.asked
        self._study.sampler = self._sampler_for(number)
        if chosen is not None:
            self._study.enqueue_trial({name: self._encodings[name].encode(value) for name, value in chosen.items()})
        trial = self._study.ask()
        if chosen is not None and self._sampler == "nsga2":
            # A point that is given is never sampled, and only sampling assigns a trial to its generation.
            _ = trial.relative_params
        self.asked += 1
        suggestions: dict[str, Any] = {}
        point: dict[str, Scalar] = {}
        for parameter in self._space.open:
            if self._space.active(parameter, point):
                encoding = self._encodings[parameter.name]
                suggestions[parameter.name] = encoding.suggest(trial)
                point[parameter.name] = encoding.decode(suggestions[parameter.name])
        return Suggestion(
            ask=number,
            chosen=point,
            suggestions=suggestions,
            distributions={name: self._encodings[name].json for name in suggestions},
            system_attrs=dict(self._storage.get_trial_system_attrs(trial._trial_id)),
        )

    def tell(self, ask: int, told: Told) -> None:
        state, values = self._as_optuna(told)
        if told.state != "failed":
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, ask)
            optuna.Trial(self._study, trial_id).set_constraint("violation", told.violation)
        self._study.tell(ask, values, state)

    def take_changed_attributes(self) -> Attributes:
        now = self._storage.get_study_system_attrs(self._study._study_id)
        changed = {
            name: value
            for name, value in now.items()
            if name not in self._attributes or self._attributes[name] != value
        }
        self._attributes.update(changed)
        return changed

    def optuna_trials(self) -> list[optuna.trial.FrozenTrial]:
        """The study as Optuna has it, for looking into it."""
        return self._study.get_trials()

    def _as_optuna(self, told: Told) -> tuple[TrialState, list[float] | None]:
        if told.state == "complete":
            assert told.values is not None
            return TrialState.COMPLETE, list(told.values)
        if told.state == "infeasible" and self._sampler in _LEARNS_FROM_COMPLETE_ONLY:
            return TrialState.COMPLETE, self._worst
        return (TrialState.FAIL if told.state == "failed" else TrialState.PRUNED), None

    def _restore(self, past: PastAsk) -> None:
        if past.ask != self.asked:
            raise ValueError(f"ask {past.ask} follows ask {self.asked - 1}: rows are missing")
        # In the order of the space: a JSON column may have sorted the names, and quasi-random sequences depend on it.
        names = [name for name in self._encodings if name in past.suggestions]
        state, values = (TrialState.RUNNING, None) if past.told is None else self._as_optuna(past.told)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params={name: past.suggestions[name] for name in names},
                distributions={name: self._restored_distribution(name, past.distributions[name]) for name in names},
                system_attrs=dict(past.system_attrs),
                constraints=None
                if past.told is None or past.told.state == "failed"
                else {"violation": past.told.violation},
            )
        )
        self.asked += 1

    def _restored_distribution(self, name: str, row: Mapping[str, Any]) -> BaseDistribution:
        encoding = self._encodings[name]
        return encoding.distribution if row == encoding.json else json_to_distribution(json.dumps(row))

    def _sampler_for(self, ask: int) -> BaseSampler:
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{ask}".encode()).digest()[:4], "big")
        if self._sampler == "tpe":
            return TPESampler(multivariate=True, group=True, seed=seed)
        if self._sampler == "nsga2":
            return NSGAIISampler(population_size=self._population, seed=seed)
        if self._sampler == "gp":
            return GPSampler(seed=seed, warn_independent_sampling=False)
        if self._sampler == "qmc":
            return QMCSampler(
                scramble=True,
                seed=self._seed,
                independent_sampler=RandomSampler(seed=seed),
                warn_independent_sampling=False,
            )
        return RandomSampler(seed=seed)


class Scheduler:
    """Leads sweeps: one thread of this process works in what ended and asks for more, off the event loop.

    Several processes may run one each: a sweep has one leader at a time, every write carries the leader's epoch, and
    what a former leader computed is thrown away. `step` may be called without `start`.
    """

    def __init__(self, database: Database, notifications: Notifications, settings: Settings) -> None:
        self._database = database
        self._notifications = notifications
        self._settings = settings
        self._leader_id = new_id()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._epochs: dict[str, int] = {}
        self._led: dict[str, LedSweep] = {}
        self._unresolved: dict[str, list[dict[str, Any]]] = {}
        """Sweep without a target -> the targets that were offered when it was last tried."""
        self._errors: dict[str, tuple[int, float]] = {}
        """Sweep -> how often in a row its step failed, and when to try again (monotonic clock)."""
        self._renewed_at = -math.inf
        self._ticked_at = -math.inf

    def start(self) -> None:
        """Begin to schedule in a thread."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step, and leave the sweeps to others."""
        self._stopping.set()
        self._notifications.publish(SCHEDULER)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._epochs.clear()
            self._led.clear()
            self._database.write(lambda session: leadership.release(session, self._leader_id))

    def step(self, sweep_id: str) -> bool:
        """Do all that can be done for one sweep now; False where there was nothing, or another process leads it."""
        with self._lock:
            worked, again = False, True
            while again:
                wrote, again = self._advance(sweep_id)
                worked |= wrote
            return worked

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            since = self._notifications.version(SCHEDULER)
            try:
                self._round()
            except Exception:  # noqa: BLE001 - logged
                # The database may be away: nothing is lost by trying again.
                _log.exception("the scheduler could not look around")
            if self._stopping.is_set():
                return
            self._notifications.wait_blocking(SCHEDULER, self._settings.scheduler_idle_seconds, since=since)

    def _round(self) -> None:
        self._tick()
        condition = leadership.may_lead(self._leader_id)
        for lead in self._database.read(lambda session: schedules.candidates(session, condition)):
            if self._stopping.is_set():
                return
            if self._is_due(lead):
                self._try_step(lead.id)

    def _tick(self) -> None:
        """What is done by the clock: leadership is renewed, lapsed trials and old keys are cleared away."""
        clock = time.monotonic()
        if clock - self._renewed_at >= self._settings.leader_seconds / 3:
            self._renewed_at = clock
            self._renew()
        if clock - self._ticked_at >= self._settings.scheduler_idle_seconds:
            self._ticked_at = clock
            self._database.write(queue.expire)
            self._database.write(idempotency.forget_old)

    def _renew(self) -> None:
        with self._lock:
            held = list(self._epochs)
            if not held:
                return
            seconds = self._settings.leader_seconds
            kept = self._database.write(lambda session: leadership.renew(session, held, self._leader_id, seconds))
            for sweep_id in set(held) - kept:
                self._forget(sweep_id)

    def _is_due(self, lead: Lead) -> bool:
        _, not_before = self._errors.get(lead.id, (0, -math.inf))
        if time.monotonic() < not_before:
            return False
        led = self._led.get(lead.id)
        return led is None or lead.overdue or lead.event_counter > led.read_sequence

    def _try_step(self, sweep_id: str) -> None:
        try:
            self.step(sweep_id)
        except Exception:  # noqa: BLE001 - logged, and the other sweeps go on
            failures = self._errors.get(sweep_id, (0, 0.0))[0] + 1
            self._errors[sweep_id] = (failures, time.monotonic() + min(60.0, 2.0**failures))
            _log.exception("sweep %s could not be scheduled, %d times in a row", sweep_id, failures)
        else:
            self._errors.pop(sweep_id, None)

    # --- one sweep ----------------------------------------------------------------------------------------------------

    def _advance(self, sweep_id: str) -> tuple[bool, bool]:
        """One transaction's work for a sweep. Returns whether something was written, and whether to look again."""
        try:
            led = self._lead(sweep_id)
            return (False, False) if led is None else self._work(sweep_id, led)
        except Fenced:
            self._forget(sweep_id)
            return False, False
        except Exception:
            # The study in memory may be ahead of the rows now.
            self._forget(sweep_id)
            raise

    def _work(self, sweep_id: str, led: LedSweep) -> tuple[bool, bool]:
        after = led.read_sequence
        glance = self._database.read(lambda session: schedules.glance(session, sweep_id, after))
        if glance is None:
            self._forget(sweep_id)
            return False, False
        going = glance.state in sweeps.GOING and not glance.overdue
        changes = led.advance(glance.happenings, glance.sequence, going=going, find_sources=self._finder(led))
        if glance.overdue and changes.verdict is None:
            changes.verdict = Verdict("completed", "wall_seconds")
        ended = glance.state not in sweeps.GOING
        if changes.is_empty and not (ended and led.stored_sequence < changes.scheduled_sequence):
            return False, changes.unfinished
        epoch, stored = self._epochs[sweep_id], led.stored_sequence
        newest = self._database.write(lambda session: schedules.store(session, sweep_id, epoch, stored, changes))
        led.stored_sequence = changes.scheduled_sequence
        if ended and not changes.unfinished and newest == changes.scheduled_sequence:
            # Nothing more will happen in it, unless it is extended: its study need not stay in memory.
            self._forget(sweep_id)
            return True, False
        if changes.unfinished or changes.verdict is not None or newest != glance.sequence + len(changes.trials):
            return True, True
        # All that came after the glance are the events of these changes: no need to look again.
        led.read_sequence = newest
        return True, False

    def _lead(self, sweep_id: str) -> LedSweep | None:
        """The sweep in memory, built from its rows where it is not there; None where it cannot be led now."""
        if sweep_id in self._led:
            return self._led[sweep_id]
        if sweep_id not in self._epochs:
            leader, seconds = self._leader_id, self._settings.leader_seconds
            epoch = self._database.write(lambda session: leadership.acquire(session, sweep_id, leader, seconds))
            if epoch is None:
                return None
            self._epochs[sweep_id] = epoch
        if not self._has_target(sweep_id):
            return None
        attempts, lookahead = self._settings.max_attempts, self._settings.scheduler_lookahead
        loaded = self._database.read(
            lambda session: schedules.load(session, sweep_id, max_attempts=attempts, lookahead=lookahead)
        )
        led = self._led[sweep_id] = _build(loaded)
        return led

    def _has_target(self, sweep_id: str) -> bool:
        """Whether the sweep's target is known; where it is not, look for it among the workers that are alive."""
        alive_seconds, epoch = self._settings.worker_alive_seconds, self._epochs[sweep_id]
        found = self._database.read(lambda session: schedules.find_target(session, sweep_id, alive_seconds))
        if found is None:
            return True
        if not found.going:
            self._database.write(lambda session: schedules.skip_events(session, sweep_id, epoch))
            self._forget(sweep_id)
            return False
        if self._unresolved.get(sweep_id) == found.offered:
            return False
        document = self._database.read(lambda session: schedules.parse_stored(session, sweeps.get(session, sweep_id)))
        resolution = targets.resolve(document.space, document.target_runtime, found.offered)
        self._database.write(lambda session: schedules.store_target(session, sweep_id, epoch, resolution))
        if resolution.target is None:
            self._unresolved[sweep_id] = found.offered
        return resolution.target is not None

    def _finder(self, led: LedSweep) -> FindSources:
        project, sweep_id = led.facts.project, led.facts.id

        def find(keys: Collection[str]) -> Sequence[reuse.Source]:
            return self._database.read(lambda session: reuse.find(session, project, keys, other_than=sweep_id))

        return find

    def _forget(self, sweep_id: str) -> None:
        self._led.pop(sweep_id, None)
        self._epochs.pop(sweep_id, None)
        self._unresolved.pop(sweep_id, None)


def _build(loaded: Loaded) -> LedSweep:
    """The led sweep that its rows describe."""
    facts = loaded.facts
    study = OptunaStudy(
        facts.document.space,
        facts.goals,
        sampler=facts.sampler,
        seed=facts.document.search["seed"],
        population=population_size(facts.document.budget["trials"]),
        past=loaded.past,
        attributes={name: value for name, value in loaded.attributes.items() if not name.startswith(OWN_ATTRIBUTES)},
    )
    ranking = Ranking(facts.goals)
    for trial_id, values in loaded.ranked:
        ranking.add(trial_id, values)
    return LedSweep(facts, loaded.history, study, ranking, loaded.attributes)
