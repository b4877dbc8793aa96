"""What a dataset's profile implies for a model of it: a range of sizes, and warnings, each with its source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.parameter import Scalar
from service.common import formatting
from service.database.dataset_columns import Profile
from service.database.models import Dataset
from service.datasets.schemas import DataEvidence, Implication

HOFFMANN = "Hoffmann et al. 2022, Training Compute-Optimal Large Language Models, arXiv 2203.15556"
MORRIS = "Morris et al. 2025, How much do language models memorize?, arXiv 2505.24832"
TOKENS_PER_PARAMETER = 20
BITS_PER_PARAMETER = 3.6
"""What a Transformer of the GPT family can hold of its training data, as measured by Morris et al."""

LEAK_SHARE = 0.05
TRUNCATED_SHARE = 0.05
PADDED_SHARE = 0.5
SMALL_SPLIT = 10_000


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model of the data, as far as the data can speak against it."""

    inference: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """The parameters of its `inference`."""
    parameter_count: float | None = None


def implications(dataset: Dataset | None, model: TrainedModel | None = None) -> DataEvidence:
    """What to know before a model of the dataset is chosen; with one, also what speaks against that one."""
    if dataset is None:
        return DataEvidence(dataset=None, parameters_low=None, parameters_high=None, implications=[])
    low, high, found = _range(dataset)
    found += _leaks(dataset)
    found += _padding(dataset)
    found += _splits(dataset)
    if model is not None:
        found += _against(dataset, model, high)
    return DataEvidence(dataset=dataset.name, parameters_low=low, parameters_high=high, implications=found)


def training_tokens(dataset: Dataset | None) -> int | None:
    """Tokens of the training split; None if it is counted in examples."""
    if dataset is None:
        return None
    return dataset.parts.get("training", {}).get("tokens")


def lowest_baseline(profile: Profile) -> tuple[str, float] | None:
    """The model that only counts with the lowest validation loss, in nats; None if none was fitted."""
    losses: Mapping[str, float] = profile.get("baselines_nats") or {}
    name = min(losses, key=lambda each: losses[each], default=None)
    return None if name is None else (name, float(losses[name]))


def _range(dataset: Dataset) -> tuple[float | None, float | None, list[Implication]]:
    tokens = training_tokens(dataset)
    if not tokens or dataset.task != "causal_lm":
        return None, None, []
    low = tokens / TOKENS_PER_PARAMETER
    found = [
        Implication(
            kind="range",
            says=f"{formatting.count(tokens)} training tokens suffice for {formatting.count(low)} parameters in one "
            f"pass at {TOKENS_PER_PARAMETER} tokens a parameter; more passes carry somewhat larger models",
            source=HOFFMANN,
        )
    ]
    baseline = lowest_baseline(dataset.profile)
    if baseline is None:
        return low, None, found
    name, loss = baseline
    high = max(low, tokens * loss / math.log(2) / BITS_PER_PARAMETER)
    found.append(
        Implication(
            kind="range",
            says=f"from {formatting.count(high)} parameters on a model can memorize the training set: it "
            f"has {formatting.count(tokens * loss / math.log(2))} bits (the {name} model has {loss:.3f} nats a token), "
            f"at {BITS_PER_PARAMETER} bits a parameter",
            source=MORRIS,
        )
    )
    return low, high, found


def _leaks(dataset: Dataset) -> list[Implication]:
    found: list[Implication] = []
    for name, what in (("lines", "longer lines"), ("duplicates", "examples")):
        share = float((dataset.profile.get(name) or {}).get("validation_in_training_share", 0.0))
        if share >= LEAK_SHARE:
            says = (
                f"{share:.1%} of the validation split's {what} are in the training split, too: the validation loss "
                "flatters models that memorize"
            )
            found.append(Implication(kind="warning", says=says))
    return found


def _padding(dataset: Dataset) -> list[Implication]:
    found: list[Implication] = []
    for name, lengths in _profiled_lengths(dataset).items():
        mean, longest = float(lengths.get("mean", 0.0)), float(lengths.get("longest", 0.0))
        if longest and mean / longest < PADDED_SHARE:
            says = (
                f"an example has {formatting.number(round(mean, 1))} tokens on average and {longest:.0f} at most: "
                f"{1 - mean / longest:.0%} of a batch at that {name.replace('_', ' ')} is padding"
            )
            found.append(Implication(kind="note", says=says))
    return found


def _splits(dataset: Dataset) -> list[Implication]:
    found: list[Implication] = []
    validation = dataset.parts.get("validation", {})
    size = validation.get("tokens") or validation.get("examples")
    if size and size < SMALL_SPLIT:
        unit = "tokens" if validation.get("tokens") else "examples"
        says = f"the validation split has {size:,} {unit}: its loss is a rough estimate"
        found.append(Implication(kind="warning", says=says))
    if "test" not in dataset.parts:
        says = "no test split: add the data again with --test 0.1 to confirm a choice"
        found.append(Implication(kind="note", says=says))
    return found


def _against(dataset: Dataset, model: TrainedModel, memorizes_from: float | None) -> list[Implication]:
    found: list[Implication] = []
    count = model.parameter_count
    if count and memorizes_from and count >= memorizes_from:
        says = f"{formatting.count(count)} parameters could memorize the training set: watch the gap"
        found.append(Implication(kind="warning", says=says, source=MORRIS))
    for name, lengths in _profiled_lengths(dataset).items():
        limit = model.inference.get(name)
        share = truncated_share(lengths, limit)
        if share is not None and share >= TRUNCATED_SHARE:
            says = f"a {name.replace('_', ' ')} of {limit} truncates {share:.0%} of the examples"
            found.append(Implication(kind="warning", says=says))
    return found


def _profiled_lengths(dataset: Dataset) -> dict[str, Mapping[str, float]]:
    """What is known of the examples' lengths, by the parameter of `inference` that cuts them."""
    lengths = dataset.profile.get("lengths") or {}
    if "source" in lengths:
        return {"source_length": lengths["source"], "sequence_length": lengths["target"]}
    return {"sequence_length": lengths} if lengths else {}


def truncated_share(lengths: Mapping[str, float] | None, limit: Scalar | None) -> float | None:
    """Share of examples longer than `limit`, by a profile's percentiles ({"p50": 80, ...}); None if unknown.

    Read off between the percentiles that are there, so it is right to a few per cent.
    """
    if lengths is None or not isinstance(limit, int | float):
        return None
    known = sorted(
        (float(value), float(name.removeprefix("p")) / 100)
        for name, value in lengths.items()
        if name.startswith("p") and name[1:].isdigit()
    )
    if "longest" in lengths:
        known.append((float(lengths["longest"]), 1.0))
    if len(known) < 2:
        return None
    if limit >= known[-1][0]:
        return 0.0
    from numpy import interp

    return 1.0 - float(interp(limit, [value for value, _ in known], [share for _, share in known]))
