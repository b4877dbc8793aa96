"""Size against overfitting: the generalization gap by parameter count, and tokens per parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from layers.configuration import Configuration
from layers.declarations.training import step_count
from layers.parameter import Scalar
from service.common import formatting
from service.recommendation.choice import LOSS, Candidate
from service.recommendation.schemas import Complexity, ComplexityPoint, SmallerTrial

GAP = "generalization_gap"
PROBE_SAYS = "a probe learns nothing: its size costs latency and memory alone"


def complexity(
    chosen: Candidate,
    configuration: Configuration,
    complete: Sequence[tuple[Candidate, bool]],
    objectives: Sequence[str],
    training_tokens: int | None,
    smaller: SmallerTrial | None,
    unconfirmed: str | None,
) -> Complexity:
    """`complete` are the sweep's complete trials, each with whether it is on the front; `unconfirmed` says which
    smaller trial takes no place because it was not confirmed."""
    seen = tokens_seen(configuration["training"])
    count = chosen.value("parameter_count")
    parameters = count if math.isfinite(count) and count > 0 else None
    gap = chosen.value(GAP)
    points = [
        ComplexityPoint(
            trial=each.id,
            number=each.number,
            parameter_count=each.value("parameter_count"),
            generalization_gap=each.value(GAP),
            validation_loss=each.value(LOSS),
            objectives={name: value for name in objectives if math.isfinite(value := each.value(name))},
            feasible=each.keeps_constraints,
            on_front=on_front,
        )
        for each, on_front in complete
        if all(math.isfinite(each.value(name)) for name in ("parameter_count", GAP, LOSS))
    ]
    found = Complexity(
        parameter_count=parameters,
        training_tokens=training_tokens,
        tokens_seen=seen,
        epochs=seen / training_tokens if seen and training_tokens else None,
        tokens_per_parameter=training_tokens / parameters if training_tokens and parameters else None,
        generalization_gap=gap if math.isfinite(gap) else None,
        points=sorted(points, key=lambda point: (point.parameter_count, point.number)),
        smaller=smaller,
        says=[],
    )
    says = [PROBE_SAYS] if configuration.get("task") == "probe" else _says(found, unconfirmed)
    return found.model_copy(update={"says": says})


def tokens_seen(training: Mapping[str, Scalar]) -> int | None:
    """Tokens that a training reads, with repetition; None if its length is a time."""
    if not {"batch_size", "sequence_length"} <= training.keys():
        return None
    steps = step_count(training)
    return None if steps is None else steps * int(training["batch_size"]) * int(training["sequence_length"])


def _says(found: Complexity, unconfirmed: str | None) -> list[str]:
    says: list[str] = []
    if found.tokens_per_parameter is not None and found.parameter_count is not None:
        says.append(
            f"{formatting.count(found.parameter_count)} parameters for "
            f"{formatting.count(found.training_tokens or 0)} distinct training tokens: "
            f"{found.tokens_per_parameter:.3g} tokens a parameter (about 20 is compute-optimal: Hoffmann et al. 2022)"
        )
    if found.epochs is not None:
        says.append(
            f"training reads {formatting.count(found.tokens_seen or 0)} tokens, {found.epochs:.2g} passes over the "
            "training split (up to 4 are nearly as good as fresh data: Muennighoff et al. 2023)"
        )
    if found.generalization_gap is not None:
        loss_rises = found.generalization_gap > 0
        says.append(
            f"its generalization gap is {found.generalization_gap:+.4f} nats"
            + ("" if loss_rises else ": it does not do better on what it was trained on")
        )
    correlation = _rank_correlation(found.points)
    if correlation is not None:
        grows = "grows" if correlation > 0.3 else "shrinks" if correlation < -0.3 else "does not change clearly"
        says.append(f"over {len(found.points)} trials the gap {grows} with size (rank correlation {correlation:+.2f})")
    if found.smaller is not None:
        says.append(found.smaller.says)
    elif unconfirmed is None:
        says.append("no smaller trial is statistically as good")
    return says if unconfirmed is None else [*says, unconfirmed]


def _rank_correlation(points: Sequence[ComplexityPoint]) -> float | None:
    """Spearman's; None for fewer than five trials, or if one of the two does not vary."""
    sizes = [point.parameter_count for point in points]
    gaps = [point.generalization_gap for point in points]
    if len(points) < 5 or len(set(sizes)) < 2 or len(set(gaps)) < 2:
        return None
    # Imported when it is asked for: SciPy's statistics would add a second to every start.
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(sizes), rankdata(gaps))[0, 1])
