"""A sampler with its history, by Optuna: asked, told, and rebuilt from rows. Of what schedules, only this imports it.

Our rows are the truth; a study is a cache of them in the memory of whoever leads the sweep.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
from optuna.trial import TrialState as OptunaState
from threadpoolctl import ThreadpoolController

from layers.metrics import Goal
from layers.parameter import Scalar
from layers.space.document import OpenParameter, PointError, Space
from layers.space.evaluation import evaluate_entry, is_active
from service.common.states import TrialState
from service.database.json_columns import Distribution
from service.scheduling.samplers.level_first_starts import Groups, LevelFirstStarts, layer_groups
from service.scheduling.studies import Attributes, EarlierResult, PastAsk, Suggestion, TrialResult
from service.scheduling.surrogate.attributes import DEVIATIONS
from service.sweeps.sampling import SURROGATE_STARTS, TPE_STARTS, TPE_STARTS_OF_LAYERS

if TYPE_CHECKING:
    from service.scheduling.surrogate.sampler import SurrogateSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# Penalties are infinite on purpose: the Gaussian process takes the worst value that it saw in their place.
warnings.filterwarnings("ignore", message="Clip non-finite values")

VIOLATION = "violation"
"""The one constraint that samplers are told of."""

_LEARNS_FROM_COMPLETE_ONLY = ("gp", "nsga2")
"""Samplers that do not see a pruned trial: an infeasible point is told as complete, with penalty values."""

_STARTS_AT_RANDOM = ("random", "tpe", "nsga2", "gp")

STARTS, LEVEL_FIRST = "starts", "level_first"
"""The attribute of a study whose start-up points have layers that differ drawn level first, and its value. A study that
began before there was this rule has no such attribute, and goes on as it began."""


def seed_of_ask(seed: int, ask: int) -> int:
    """The seed of one ask of a sweep's study."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{ask}".encode()).digest()[:4], "big")


class Encoding:
    """How one open parameter is put to a sampler, and read back.

    Numeric choices go as an ordinal index, not as categories: it matters more to a search than which sampler it is.
    """

    def __init__(self, parameter: OpenParameter) -> None:
        self.name = parameter.name
        self._parameter = parameter
        self.distribution = _distribution(parameter)
        self.json: Distribution = json.loads(distribution_to_json(self.distribution))

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

    def number(self, value: Scalar) -> float | None:
        """A value of another space as a number of the distribution: it may lie between its values or beyond its bounds.

        None if it is none: another category, or text for a number.
        """
        parameter = self._parameter
        if isinstance(self.distribution, CategoricalDistribution):
            known = [(type(choice), choice) for choice in parameter.values]
            return float(known.index((type(value), value))) if (type(value), value) in known else None
        if isinstance(value, str | bool):
            return None
        if parameter.kind == "values":
            return _place_among([float(each) for each in parameter.values], float(value))
        if self._is_stepped_number:
            assert parameter.low is not None
            assert parameter.step is not None
            return (float(value) - parameter.low) / parameter.step
        return float(value)

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


def _place_among(values: Sequence[float], value: float) -> float:
    """The index of a value among growing ones; between two of them, or beyond the last as if the steps went on."""
    if len(values) == 1:
        return 0.0
    right = min(max(bisect.bisect_left(values, value), 1), len(values) - 1)
    left = right - 1
    return left + (value - values[left]) / (values[right] - values[left])


class _SpaceKnowledge:
    """What of the space a sampler cannot see in distributions: conditions and rules, in the sampler's encoding."""

    def __init__(self, space: Space, encodings: Mapping[str, Encoding]) -> None:
        self._space = space
        self._encodings = encodings

    def present(self, suggestions: Mapping[str, Scalar]) -> list[str]:
        """The open parameters that a point has, of suggestions for all of them."""
        environment = self._space.environment()
        present: list[str] = []
        for entry in self._space.entries:
            try:
                if not is_active(entry, environment):
                    continue
            except PointError:
                # Such a point is not allowed.
                continue
            if entry.opening is None:
                evaluate_entry(entry, environment)
            else:
                present.append(entry.name)
                environment[entry.name] = self._encodings[entry.name].decode(suggestions[entry.name])
        return present

    def deciding(self) -> list[str]:
        """The open parameters that conditions name, directly or through what is derived."""
        entries = {entry.name: entry for entry in self._space.entries}
        pending = [name for entry in entries.values() if entry.opening and entry.when for name in entry.when.names]
        named: set[str] = set()
        while pending:
            name = pending.pop()
            if name in named or name not in entries:
                continue
            named.add(name)
            for expression in (entries[name].when, entries[name].derived):
                pending += expression.names if expression is not None else ()
        return [name for name in self._encodings if name in named]

    def is_allowed(self, suggestions: Mapping[str, Scalar]) -> bool:
        """Whether a point breaks no rule and no constraint that is known before a trial."""
        try:
            chosen = {name: self._encodings[name].decode(value) for name, value in suggestions.items()}
            return self._space.judge(self._space.resolve(chosen)) is None
        except PointError:
            return False


class OptunaStudy:
    """A study in memory: `service.scheduling.studies.Study` over Optuna.

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
        attributes: Attributes | None = None,
        earlier: Sequence[EarlierResult] = (),
        uncertain: int | None = None,
    ) -> None:
        self._space = space
        self._uncertain = uncertain
        self._sampler = sampler
        self._seed = seed
        self._population = population
        self._encodings = {parameter.name: Encoding(parameter) for parameter in space.open}
        self._distributions = {name: encoding.distribution for name, encoding in self._encodings.items()}
        self._worst = [math.inf if goal == "minimize" else -math.inf for goal in goals]
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, directions=list(goals))
        self._surrogate = self._make_surrogate(earlier) if sampler == "surrogate" else None
        self._threads = ThreadpoolController() if sampler == "surrogate" else None
        self._attributes: Attributes = {}
        self.asked = 0
        for name, value in (attributes or {}).items():
            self._storage.set_study_system_attr(self._study._study_id, name, value)
            self._attributes[name] = value
        for ask in past:
            self._restore(ask)
        self._groups = self._groups_drawn_level_first()

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        if self._threads is None:
            return self._ask(chosen)
        # Sums of several threads round otherwise, by how many there are.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._ask(chosen)

    def _ask(self, chosen: Mapping[str, Scalar] | None) -> Suggestion:
        number = self.asked
        self._study.sampler = self._sampler_for(number)
        if chosen is not None:
            self._study.enqueue_trial({name: self._encodings[name].encode(value) for name, value in chosen.items()})
        trial = self._study.ask()
        if chosen is not None and self._sampler == "nsga2":
            # A point that is given is never sampled, and only sampling assigns a trial to its generation.
            _ = trial.relative_params
        self.asked += 1
        suggestions: dict[str, Scalar] = {}
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

    def tell(self, ask: int, result: TrialResult) -> None:
        state, values = self._as_optuna(result)
        if result.state != "failed":
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, ask)
            for name, value in self._deviations(result).items():
                self._storage.set_trial_system_attr(trial_id, name, value)
            optuna.Trial(self._study, trial_id).set_constraint(VIOLATION, result.violation)
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

    def _as_optuna(self, result: TrialResult) -> tuple[OptunaState, list[float] | None]:
        if result.state == TrialState.COMPLETE or (result.state == TrialState.PRUNED and result.values is not None):
            # What a pruner expected teaches all samplers where not to look, in the way that each understands.
            assert result.values is not None
            return OptunaState.COMPLETE, list(result.values)
        if result.state == TrialState.INFEASIBLE and self._sampler in _LEARNS_FROM_COMPLETE_ONLY:
            return OptunaState.COMPLETE, self._worst
        return (OptunaState.FAIL if result.state == TrialState.FAILED else OptunaState.PRUNED), None

    def _deviations(self, result: TrialResult) -> Attributes:
        """What the surrogate reads of how sure the values are."""
        if result.spread is None or result.values is None or self._uncertain is None:
            return {}
        of_training = self._uncertain
        return {DEVIATIONS: [result.spread if place == of_training else None for place in range(len(result.values))]}

    def _restore(self, past: PastAsk) -> None:
        if past.ask != self.asked:
            raise ValueError(f"ask {past.ask} follows ask {self.asked - 1}: rows are missing")
        # In the order of the space: a JSON column may have sorted the names, and quasi-random sequences depend on it.
        names = [name for name in self._encodings if name in past.suggestions]
        state, values = (OptunaState.RUNNING, None) if past.result is None else self._as_optuna(past.result)
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params={name: past.suggestions[name] for name in names},
                distributions={name: self._restored_distribution(name, past.distributions[name]) for name in names},
                system_attrs={**past.system_attrs, **({} if past.result is None else self._deviations(past.result))},
                constraints=None
                if past.result is None or past.result.state == TrialState.FAILED
                else {VIOLATION: past.result.violation},
            )
        )
        self.asked += 1

    def _restored_distribution(self, name: str, row: Distribution) -> BaseDistribution:
        encoding = self._encodings[name]
        return encoding.distribution if row == encoding.json else json_to_distribution(json.dumps(row))

    def _groups_drawn_level_first(self) -> Groups:
        """The groups of layers that start-up points draw level first. Of a new study this is written down."""
        groups = layer_groups(self._distributions) if self._sampler in _STARTS_AT_RANDOM else ()
        if groups and not self.asked and STARTS not in self._attributes:
            self._storage.set_study_system_attr(self._study._study_id, STARTS, LEVEL_FIRST)
        rule = self._storage.get_study_system_attrs(self._study._study_id).get(STARTS)
        return groups if rule == LEVEL_FIRST else ()

    def _make_surrogate(self, earlier: Sequence[EarlierResult]) -> SurrogateSampler:
        # Imported where it is taken: SciPy's parts would slow every start.
        from service.scheduling.surrogate.prior import EarlierTrial
        from service.scheduling.surrogate.sampler import SurrogateSampler
        from service.scheduling.surrogate.space import SearchSpace

        knowledge = _SpaceKnowledge(self._space, self._encodings)
        space = SearchSpace(self._distributions, knowledge.present, knowledge.deciding(), knowledge.is_allowed)
        found = [
            EarlierTrial(self._numbers(trial.parameters), trial.values, {VIOLATION: trial.violation})
            for trial in earlier
        ]
        return SurrogateSampler(space, seed=self._seed, starts=SURROGATE_STARTS, earlier=found)

    def _numbers(self, parameters: Mapping[str, Scalar]) -> dict[str, float]:
        """Values of parameters as numbers of their distributions; what is none of the values is left out."""
        numbers = {
            name: encoding.number(parameters[name]) for name, encoding in self._encodings.items() if name in parameters
        }
        return {name: number for name, number in numbers.items() if number is not None}

    def _sampler_for(self, ask: int) -> BaseSampler:
        if self._surrogate is not None:
            # It draws each ask from the seed and its number, and remembers only what it would compute again.
            return self._surrogate
        sampler = self._optuna_sampler(seed_of_ask(self._seed, ask))
        if self._groups:
            return LevelFirstStarts(sampler, self._groups, self._distributions, self._seed)
        return sampler

    def _optuna_sampler(self, seed: int) -> BaseSampler:
        if self._sampler == "tpe":
            starts = TPE_STARTS_OF_LAYERS if self._groups else TPE_STARTS
            return TPESampler(multivariate=True, group=True, seed=seed, n_startup_trials=starts)
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
