"""Random search without a history: what it suggests depends on the seed and the ask's number alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from layers.parameter import Scalar
from layers.space.space import Space
from service.scheduling.optuna_study import Encoding, seed_of_ask
from service.scheduling.samplers.level_first_starts import layer_groups
from service.scheduling.studies import Attributes, PastAsk, Suggestion, TrialResult

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

FIXED = "fixed_params"
"""The attribute under which Optuna keeps what a point that is given has."""


class RandomStudy:
    """`service.scheduling.studies.Study` of Optuna's random sampler; suggests what `OptunaStudy` does.

    That keeps every trial with its history, which takes most of the time of an ask and a tell, and nobody looks at it.
    """

    def __init__(self, space: Space, *, seed: int, past: Iterable[PastAsk] = ()) -> None:
        self._space = space
        self._seed = seed
        self._encodings = {parameter.name: Encoding(parameter) for parameter in space.open}
        self.asked = 0
        for ask in past:
            if ask.ask != self.asked:
                raise ValueError(f"ask {ask.ask} follows ask {self.asked - 1}: rows are missing")
            self.asked += 1

    @classmethod
    def suits(cls, space: Space) -> bool:
        """Whether the space has no layers that are drawn together: those need a study."""
        return not layer_groups({parameter.name: Encoding(parameter).distribution for parameter in space.open})

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        number = self.asked
        self.asked += 1
        fixed = {name: self._encodings[name].encode(value) for name, value in (chosen or {}).items()}
        sampler = RandomSampler(seed=seed_of_ask(self._seed, number))
        suggestions: dict[str, Scalar] = {}
        point: dict[str, Scalar] = {}
        for parameter in self._space.open:
            name = parameter.name
            if self._space.active(parameter, point):
                encoding = self._encodings[name]
                suggestions[name] = fixed[name] if name in fixed else _drawn(sampler, name, encoding.distribution)
                point[name] = encoding.decode(suggestions[name])
        return Suggestion(
            ask=number,
            chosen=point,
            suggestions=suggestions,
            distributions={name: self._encodings[name].json for name in suggestions},
            system_attrs={} if chosen is None else {FIXED: fixed},
        )

    def tell(self, ask: int, result: TrialResult) -> None:
        """Nothing is learnt of it."""

    def take_changed_attributes(self) -> Attributes:
        return {}


def _drawn(sampler: RandomSampler, name: str, distribution: BaseDistribution) -> Any:
    if distribution.single():
        # As Optuna does: what has one value takes no random number.
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[0]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return distribution.low
    nothing = cast("Study", None), cast("FrozenTrial", None)  # this sampler looks at neither
    return sampler.sample_independent(*nothing, name, distribution)
