"""The recommended trial beside published configurations: how the sweep's starts did, and the nearest preset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from layers.configuration import Configuration
from layers.declarations.per_layer import layer_name
from layers.metrics import Goal
from layers.parameter import Scalar
from layers.presets import PRESETS, Preset
from service.recommendation.choice import Candidate
from service.recommendation.metric_differences import in_words, metric_differences
from service.recommendation.schemas import Literature, NearestPreset, ParameterDifference, StartResult
from service.results.schemas import LeaderboardRow


def compare_presets(
    chosen: Candidate,
    configuration: Configuration,
    starts: Sequence[tuple[str, Candidate]],
    goals: Mapping[str, Goal],
    row: Callable[[Candidate], LeaderboardRow],
) -> Literature:
    """`starts` are the sweep's trials that came from `start_from`, each with the start's name."""
    results = [_result(name, trial, chosen, goals, row) for name, trial in starts]
    nearest = nearest_preset(configuration["model"])
    says = [result.says for result in results] or ["the sweep had no published configuration as a start"]
    if nearest is not None:
        differs = ", ".join(
            f"{each.parameter} {_shown(each.recommended)} (there {_shown(each.preset)})"
            for each in nearest.differences[:6]
        )
        more = len(nearest.differences) - 6
        says.append(
            f"nearest is {nearest.preset} ({nearest.source}), the same in {nearest.same} parameters; it differs in "
            + (differs or "nothing")
            + (f" and {more} more" if more > 0 else "")
        )
    return Literature(starts=results, nearest=nearest, says=says)


MOST_DISTANCE = 4.0
"""Of two numbers, in factors of two."""


def nearest_preset(values: Mapping[str, Scalar]) -> NearestPreset | None:
    """The preset of the same kind of model that is closest in the parameters that it names; None if none is.

    Numbers are compared by their ratio (a factor of two counts like a different name, one of 16 or more like four: an
    eps is not to outweigh all sizes), in the model alone.
    """
    kind = values.get("kind", "decoder")
    fitting = [preset for preset in PRESETS.values() if preset.values.get("kind", "decoder") == kind]
    if not fitting:
        return None
    preset = min(fitting, key=lambda each: (_distance(values, each), each.name))
    compared = _compared(values, preset)
    differences = [
        ParameterDifference(parameter=name, recommended=mine, preset=theirs)
        for name, (mine, theirs) in compared.items()
        if mine != theirs
    ]
    return NearestPreset(
        preset=preset.name,
        title=preset.title,
        source=preset.source,
        url=preset.url,
        same=len(compared) - len(differences),
        differences=differences,
    )


def _result(
    name: str,
    trial: Candidate,
    chosen: Candidate,
    goals: Mapping[str, Goal],
    row: Callable[[Candidate], LeaderboardRow],
) -> StartResult:
    preset = PRESETS.get(name.removeprefix("preset:"))
    found = metric_differences(trial, chosen, [*goals, "parameter_count"], goals)
    if trial.id == chosen.id:
        says = f"{name} is the recommended trial itself"
    elif found:
        says = f"{name} (trial {trial.number}) against the recommended trial: {in_words(found)}"
    else:
        says = f"{name} (trial {trial.number}) was not measured to the end"
    return StartResult(
        start=name, title=None if preset is None else preset.title, trial=row(trial), trades=found, says=says
    )


def _compared(values: Mapping[str, Scalar], preset: Preset) -> dict[str, tuple[Scalar | None, Scalar]]:
    """What the preset names of a model. Of single layers what the model names, too: dozens of layers that slide would
    outweigh all the rest."""
    sections = ("training.", "inference.")
    return {
        name: (values.get(name), theirs)
        for name, theirs in preset.values.items()
        if not name.startswith(sections) and (name in values or layer_name(name) is None)
    }


def _distance(values: Mapping[str, Scalar], preset: Preset) -> float:
    compared = _compared(values, preset)
    return sum(_distance_share(mine, theirs) for mine, theirs in compared.values()) / max(1, len(compared))


def _distance_share(mine: Scalar | None, theirs: Scalar) -> float:
    if mine == theirs:
        return 0.0
    numbers = [each for each in (mine, theirs) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == 2 and all(each > 0 for each in numbers):
        return min(abs(math.log2(float(numbers[0]) / float(numbers[1]))), MOST_DISTANCE)
    return 1.0


def _shown(value: Scalar | None) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
