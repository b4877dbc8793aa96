"""What a sweep tries next: its starts, then what the sampler suggests, less what breaks a rule or was tried before."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from layers.capabilities import Capabilities
from layers.configuration import Configuration
from layers.declarations.inference.shapes import shapes_of
from layers.parameter import Scalar
from layers.space.document import PointError, Rejection, Space, Start
from layers.space.space import static_metrics
from service.common.hashing import canonical_hash
from service.common.metrics import ASK_SECONDS, TELL_SECONDS
from service.common.states import TrialState
from service.scheduling.grid import GridProgress, ShuffledGrid
from service.scheduling.studies import FAILED, NO_CONSTRAINT_VIOLATION, Study, Suggestion, TrialResult

MAX_CONSECUTIVE_REFUSALS = 20
"""Suggestions in a row that may break a rule or repeat a point, before a new point is taken at random instead."""
MAX_DRAWS = 5_000
"""Random points that are looked at in a space too large to enumerate, before it counts as exhausted."""
POINTS_AT_ONCE = 2_000
"""Points of the grid that are looked at before what was passed is stored. A count: it is the same each time."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point that a trial may be made of."""

    chosen: dict[str, Scalar]
    shown: dict[str, Scalar]
    configuration: Configuration
    hash: str

    def static_metrics(self) -> dict[str, float]:
        """What is known of a trial of it before it runs."""
        found = self.configuration
        return static_metrics(found["model"], found["inference"], shapes_of(found.get("shapes", [])))


@dataclass(frozen=True, slots=True)
class Proposal:
    """One ask and what came of it: a new `point`, or a `rejection` with the `result` that the sampler was told."""

    suggestion: Suggestion
    point: Point | None = None
    started_from: str | None = None
    result: TrialResult | None = None
    rejection: str | None = None
    is_repetition: bool = False
    """The rejected point breaks nothing: it was tried before."""


@dataclass(slots=True)
class KnownPoint:
    """A point that has a trial."""

    number: int
    result: TrialResult | None = None


def total_violation(violations: Iterable[float]) -> float:
    """One figure of several constraints, <= 0 if all are kept: samplers compare it, units differ.

    The sum of what is broken; if nothing is, how near the nearest bound is.
    """
    scaled = [math.copysign(math.log1p(abs(violation)), violation) for violation in violations]
    broken = [violation for violation in scaled if violation > 0]
    if broken:
        return sum(broken)
    return max(scaled, default=NO_CONSTRAINT_VIOLATION)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What a sweep may try."""

    space: Space
    starts: Sequence[Start] = ()
    """Points to try first."""
    capabilities: Capabilities | None = None
    """Of the sweep's target: a point that it does not support is rejected; None if the target is not known."""


class Proposals:
    """The asks of one sweep. `known` maps the hash of a point to its trial, and is kept by the caller.

    What comes next depends only on the study's history, `known` and the `grid`'s position, never on time.
    """

    def __init__(
        self,
        search_space: SearchSpace,
        study: Study,
        known: Mapping[str, KnownPoint],
        *,
        seed: int,
        in_order: bool = False,
        grid: GridProgress | None = None,
        progressed: Callable[[], None] = lambda: None,
        judge_hardware: Callable[[Point], Rejection | None] = lambda point: None,
    ) -> None:
        """`in_order`: the study is the grid's; `grid`: where to go on (default: at its beginning); `progressed` is
        called for each point that is looked at; `judge_hardware` says why a new point is not worth a build, if that
        is known."""
        self._space = search_space.space
        self._starts = search_space.starts
        self._capabilities = search_space.capabilities
        self._judge_hardware = judge_hardware
        self._study = study
        self._known = known
        self._in_order = in_order
        self._seed = seed
        self._shuffled: ShuffledGrid | None = None
        self.grid = grid or GridProgress()
        self.passed = 0
        """Points of the grid that the grid sampler rejected since it was last set to 0."""
        self._progressed = progressed

    @property
    def has_starts(self) -> bool:
        """Whether a start was not asked for yet: the first asks of a sweep are its starts."""
        return not self.grid.exhausted and self._study.asked < len(self._starts)

    def next(self) -> Iterator[Proposal]:
        """The asks up to and with the one that has a new point.

        If the last one has none, the `grid` is exhausted, or `drawing`: then more of it is to be looked at.
        """
        while not self.grid.drawing and self.has_starts:
            start = self._starts[self._study.asked]
            proposal = self._ask(start.chosen, start.name)
            yield proposal
            if proposal.point is not None:
                return
        refusals = MAX_CONSECUTIVE_REFUSALS if self._in_order or self.grid.drawing else 0
        while not self.grid.exhausted and refusals < MAX_CONSECUTIVE_REFUSALS:
            proposal = self._ask()
            yield proposal
            if proposal.point is not None:
                return
            refusals += 1
        if self.grid.exhausted:
            return
        chosen = self._draw()
        if chosen is not None:
            yield self._ask(chosen)
        elif not self.grid.drawing:
            self.grid = replace(self.grid, exhausted=True)

    def ask_again(self, chosen: Mapping[str, Scalar]) -> Suggestion:
        """Ask for a point that has a trial. The first asks are the starts, so none of them may be left."""
        with ASK_SECONDS.time():
            return self._study.ask(chosen)

    def _ask(self, chosen: Mapping[str, Scalar] | None = None, started_from: str | None = None) -> Proposal:
        with ASK_SECONDS.time():
            suggestion = self._study.ask(chosen)
        found = self._judge(suggestion.chosen)
        if isinstance(found, Point) and started_from is None and found.hash not in self._known:
            found = self._judge_hardware(found) or found
        if isinstance(found, Rejection):
            result = TrialResult(TrialState.INFEASIBLE, None, total_violation([found.violation]))
            proposal = Proposal(suggestion, result=result, rejection=f"{found.rule}: {found.message}")
        elif (known := self._known.get(found.hash)) is not None:
            result = known.result or FAILED
            proposal = Proposal(
                suggestion, result=result, rejection=f"repeats trial {known.number}", is_repetition=True
            )
        else:
            return Proposal(suggestion, found, started_from)
        with TELL_SECONDS.time():
            self._study.tell(suggestion.ask, result)
        return replace(proposal, started_from=started_from)

    def _judge(self, chosen: Mapping[str, Scalar]) -> Point | Rejection:
        try:
            values = self._space.resolve(chosen)
        except PointError as error:
            return Rejection("derived", str(error), 1.0)
        completed = self._space.complete_or_reject(values, self._capabilities)
        if isinstance(completed, Rejection):
            return completed
        configuration = self._space.configured(completed)
        return Point(dict(chosen), self._space.shown(values), configuration, canonical_hash(configuration))

    def _draw(self) -> dict[str, Scalar] | None:
        """A point that breaks nothing and has no trial. None: there is none, or the `grid` is `drawing` still."""
        self.grid = replace(self.grid, drawing=False)
        for looked_at, chosen in enumerate(self._candidates(), start=1):
            self._progressed()
            found = self._judge(chosen)
            if isinstance(found, Point) and found.hash not in self._known and self._judge_hardware(found) is None:
                return chosen
            self.passed += self._in_order and isinstance(found, Rejection)
            if looked_at == POINTS_AT_ONCE and self._shuffled is not None and self.grid.position < len(self._shuffled):
                self.grid = replace(self.grid, drawing=True)
                return None
        return None

    def _candidates(self) -> Iterator[dict[str, Scalar]]:
        points = self._space.points()
        if points is None:
            source = random.Random(f"draw/{self._seed}/{self._study.asked}")
            for _ in range(MAX_DRAWS):
                yield dict(self._space.sample(source))
            return
        if self._shuffled is None:
            self._shuffled = ShuffledGrid(self._space, points, self._seed)
        while (position := self.grid.position) < len(self._shuffled):
            self.grid = replace(self.grid, position=position + 1)
            yield self._shuffled.at(position)
