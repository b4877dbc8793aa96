"""What validation finds out about a space: its points, the share that can become trials, what rejects the rest."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.completion import DoesNotApply
from layers.expressions.names import VARIABLES
from layers.parameter import ParameterError, Scalar
from layers.space.allowed_time import AllowedTime
from layers.space.enumeration import Walked, expression_characters, with_needs
from layers.space.evaluation import PointError, Rejection
from layers.space.space import Completed, Space, section_of

SAMPLES = 10_000
FEWEST_SAMPLES = 200
"""Points that are judged however long that takes."""
SECONDS = 6.0
"""Of this thread's CPU time, after which a measurement of feasibility ends with as many samples as it has."""
ENUMERATION_SHARE = 2 / 3
"""Of that time: an enumeration that takes longer is given up for samples."""
CONFIDENCE = 1.959964
"""Standard deviations to either side that hold 95 %."""
PROBES = 500
MAX_COMPLETIONS = 50_000
"""Models completed and judged in one enumeration: about three seconds. A space that needs more is sampled."""
STEP_WORK = 0.2
"""Of looking at one more point, in models completed."""
MOST_ENUMERATED = round(MAX_COMPLETIONS / STEP_WORK)
MODEL_SECONDS, LOOK_SECONDS, ENTRY_SECONDS = 6e-5, 1e-5, 1.5e-6
"""What it takes to complete and judge a model, to look at a point, and at one entry of it (a core of 2024)."""
CHECKED_EVERY = 20
"""Points that are judged between two looks at the clock."""
CHARACTER_WORK = 0.001
"""Of calculating one character of rules, conditions and derivations at a point, in models completed."""


@dataclass(frozen=True, slots=True)
class FeasibilityReport:
    """`points`: distinct points, None if a parameter is continuous or they are more than 10 ** 6.

    `feasible_share` and `rejections` (rule -> share of the points that it rejects first) are over all distinct points,
    or, if `sampled`, over `judged` random points, each parameter drawn by itself: SAMPLES, or fewer if SECONDS
    ended it.
    `errors` are points that cannot be had at all, one example a parameter; `examples` is one rejection a rule.
    """

    points: int | None
    feasible_share: float
    sampled: bool
    judged: int
    rejections: dict[str, float]
    errors: tuple[PointError, ...] = ()
    examples: dict[str, Rejection] = field(default_factory=dict[str, Rejection])

    @property
    def feasible_points(self) -> int | None:
        """How many points keep the rules; None if they are not known one by one."""
        return None if self.points is None or self.sampled else round(self.points * self.feasible_share)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of all points lies: the share itself where all were judged, else with 95 % confidence.

        Wilson 1927: unlike the normal approximation it is right if none or all of few samples are feasible.
        """
        if not self.sampled:
            return self.feasible_share, self.feasible_share
        share, per_sample = self.feasible_share, CONFIDENCE**2 / self.judged
        middle = share + per_sample / 2
        half = CONFIDENCE * math.sqrt(share * (1 - share) / self.judged + per_sample / (4 * self.judged))
        return max(0.0, (middle - half) / (1 + per_sample)), min(1.0, (middle + half) / (1 + per_sample))


Outcome = Rejection | PointError | None


class FeasibilityJudge:
    """Judges many points of one space. A model is completed once, however many ways there are to train it."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._inference: dict[tuple[Scalar | None, ...], dict[str, Scalar] | ParameterError] = {}
        self._training: dict[tuple[Scalar | None, ...], dict[str, Scalar] | ParameterError] = {}
        self._models: dict[tuple[Scalar | None, ...], Outcome] = {}
        names = [entry.name for entry in space.entries if entry.when is not None or entry.value is None]
        named = {name for rule in space.late_rules for name in rule.expression.names}
        judged = (*space.constraints, *space.calculated)
        named |= {name for constraint in judged for name in constraint.expression.names}
        self._inference_names = tuple(name for name in names if section_of(name)[0] == "inference")
        self._training_names = tuple(name for name in names if section_of(name)[0] == "training")
        apart = ("training", VARIABLES)
        self.model_names = tuple(name for name in names if section_of(name)[0] not in apart or name in named)
        """What the model depends on, and what is judged with it."""
        if any(name.startswith("training.") and name not in names for name in named):
            # A rule names a default of training's, which may follow from any other parameter there.
            self.model_names = tuple(names)
        self.completions = 0

    def judge(self, point: Walked) -> Outcome:
        """Why a point becomes no trial: a rejection, or a PointError if it is no point at all."""
        environment, errors = point
        outcome = self._space.judge_rules(self._space.early_rules, environment)
        if isinstance(outcome, Rejection):
            return outcome
        if errors or outcome is not None:
            return next(iter(errors.values()), outcome)
        values = self._space.values_of(environment)
        inference = self._complete_inference(values)
        if isinstance(inference, ParameterError):
            return _outcome(inference, values)
        training = self._complete_training(values, inference)
        if isinstance(training, ParameterError):
            return _outcome(training, values)
        lengths = (training.get("sequence_length"), training.get("source_length"))
        key = (*lengths, *(environment.get(name) for name in self.model_names))
        if key not in self._models:
            if len(self._models) > MAX_COMPLETIONS:
                self._models.clear()
            self._models[key] = self._judge_model(values, inference, training)
            self.completions += 1
        return self._models[key]

    def _complete_inference(self, values: Mapping[str, Scalar]) -> dict[str, Scalar] | ParameterError:
        key = tuple([values.get(name) for name in self._inference_names])
        if key not in self._inference:
            if len(self._inference) > MAX_COMPLETIONS:
                self._inference.clear()
            try:
                self._inference[key] = self._space.complete_inference(values)
            except ParameterError as error:
                self._inference[key] = error
        return self._inference[key]

    def _complete_training(
        self, values: Mapping[str, Scalar], inference: Mapping[str, Scalar]
    ) -> dict[str, Scalar] | ParameterError:
        lengths = (inference["sequence_length"], inference.get("source_length"))
        key = (*lengths, *(values.get(name) for name in self._training_names))
        if key not in self._training:
            if len(self._training) > MAX_COMPLETIONS:
                self._training.clear()
            try:
                self._training[key] = self._space.complete_training(values, inference)
            except ParameterError as error:
                self._training[key] = error
        return self._training[key]

    def _judge_model(
        self, values: Mapping[str, Scalar], inference: dict[str, Scalar], training: dict[str, Scalar]
    ) -> Outcome:
        try:
            model = self._space.complete_model(values, inference, training)
        except ParameterError as error:
            return _outcome(error, values)
        return self._space.judge_completed(values, Completed(model, training, inference))


def _outcome(error: ParameterError, values: Mapping[str, Scalar]) -> Outcome:
    """A value that is given where it does not apply is a mistake in the document; any other misses only this point."""
    if isinstance(error, DoesNotApply) and error.path in values:
        return PointError(error.path, error.message, error.remedy)
    return Rejection(error.path, str(error), 1.0)


def measure_feasibility(space: Space, seconds: float = SECONDS) -> FeasibilityReport:
    """Judge every point of `space`, or SAMPLES of them if all would take more than a few seconds.

    Deterministic, but for a space of which even these take more than `seconds`: there the first so many are judged.
    """
    allowed = AllowedTime(seconds)
    points = space.points()
    judge = FeasibilityJudge(space)
    if points is not None and _expected_work(space, judge, points) <= MAX_COMPLETIONS:
        tally = _Tally()
        if _enumerate(space, judge, tally, allowed):
            return tally.report(points, sampled=False)
    source = random.Random(0)
    tally = _Tally()
    for point in (space.draw(source) for _ in range(SAMPLES)):
        tally.add(judge.judge(point))
        if tally.judged % CHECKED_EVERY == 0 and tally.judged >= FEWEST_SAMPLES and allowed.is_over:
            break
    return tally.report(points, sampled=True)


def _enumerate(space: Space, judge: FeasibilityJudge, tally: _Tally, allowed: AllowedTime) -> bool:
    """Judge every point; False if that takes too long."""
    for point in space.walk():
        tally.add(judge.judge(point))
        late = tally.judged % CHECKED_EVERY == 0 and allowed.share_used() > ENUMERATION_SHARE
        if late or judge.completions > 2 * MAX_COMPLETIONS:
            return False
    return True


def _expected_work(space: Space, judge: FeasibilityJudge, points: int) -> float:
    """An enumeration's work, in models completed."""
    models = min(points, space.points_in(judge.model_names) or points)
    source = random.Random(0)
    outcomes = (space.judge_rules(space.early_rules, space.draw(source)[0]) for _ in range(PROBES))
    kept = sum(not isinstance(outcome, Rejection) for outcome in outcomes) / PROBES
    characters = expression_characters(space.entries) + sum(len(rule.text) for rule in space.rules)
    return models * kept + points * (STEP_WORK + CHARACTER_WORK * characters)


def expected_seconds(space: Space) -> float:
    """About how long a measurement of feasibility takes, told without a look at points: rather too much than too
    little."""
    sizes = {opening.name: opening.size or SAMPLES for opening in space.open}
    is_finite = all(opening.size is not None for opening in space.open)
    points = min(math.prod(sizes.values()), MOST_ENUMERATED if is_finite else SAMPLES)
    of_models = with_needs(space.entries, FeasibilityJudge(space).model_names)
    models = math.prod(sizes[entry.name] for entry in of_models if entry.opening is not None)
    characters = expression_characters(space.entries) + sum(len(rule.text) for rule in space.rules)
    looked_at = LOOK_SECONDS + ENTRY_SECONDS * len(space.entries) + CHARACTER_WORK * MODEL_SECONDS * characters
    return points * looked_at + min(models, points, MAX_COMPLETIONS) * MODEL_SECONDS


class _Tally:
    """What became of the points that were judged."""

    def __init__(self) -> None:
        self.judged = 0
        self._feasible = 0
        self._rejected: Counter[str] = Counter()
        self._examples: dict[str, Rejection] = {}
        self._errors: dict[str, PointError] = {}

    def add(self, outcome: Outcome) -> None:
        self.judged += 1
        if outcome is None:
            self._feasible += 1
        elif isinstance(outcome, Rejection):
            self._rejected[outcome.rule] += 1
            self._examples.setdefault(outcome.rule, outcome)
        else:
            self._errors.setdefault(outcome.name, outcome)

    def report(self, points: int | None, *, sampled: bool) -> FeasibilityReport:
        shares = {rule: count / self.judged for rule, count in self._rejected.most_common()}
        share = self._feasible / self.judged
        return FeasibilityReport(
            points, share, sampled, self.judged, shares, tuple(self._errors.values()), self._examples
        )
