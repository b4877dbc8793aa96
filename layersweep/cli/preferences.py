"""`--prefer`, `--within` and `--weight`: how to choose on the front, the same for every command that chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypedDict

import typer

from layersweep.errors import InvalidUsageError

Prefer = Annotated[
    list[str] | None,
    typer.Option(metavar="METRIC", help="Choose the best trial of the front in this metric; again: it decides ties."),
]
Within = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC:AMOUNT",
        help="Choose only among trials at most so much worse than the front's best, as validation_loss:1%.",
    ),
]
Weight = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OBJECTIVE:NUMBER",
        help="How much an objective counts in the choice, as validation_loss:2; the others count 1.",
    ),
]

_A_LIMIT, _A_WEIGHT = "METRIC:AMOUNT, for example validation_loss:1%", "OBJECTIVE:NUMBER, for example validation_loss:2"


class SelectionPreferences(TypedDict):
    """Arguments of `Sweep.recommendation`, `Sweep.report` and `Sweep.confirm`."""

    prefer: Sequence[str]
    within: Mapping[str, str]
    weights: Mapping[str, float]


def wishes(prefer: list[str] | None, within: list[str] | None, weight: list[str] | None) -> SelectionPreferences:
    """The options' values. Raises InvalidUsageError."""
    return SelectionPreferences(
        prefer=prefer or (),
        within=_pairs("within", within, _A_LIMIT),
        weights=_weights(weight),
    )


def options(given: SelectionPreferences) -> list[str]:
    """The options again, for a command that chooses in the same way."""
    found = [("--prefer", metric) for metric in given["prefer"]]
    found += [("--within", f"{metric}:{amount}") for metric, amount in given["within"].items()]
    found += [("--weight", f"{metric}:{weight:g}") for metric, weight in given["weights"].items()]
    return [word for pair in found for word in pair]


def _pairs(option: str, texts: list[str] | None, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or []:
        metric, separator, amount = text.partition(":")
        if not separator:
            raise InvalidUsageError(f"--{option} {text}: write {form}")
        if metric in pairs:
            raise InvalidUsageError(f"--{option} {metric} is given twice: leave one of them out")
        pairs[metric] = amount
    return pairs


def _weights(texts: list[str] | None) -> dict[str, float]:
    weights: dict[str, float] = {}
    for metric, amount in _pairs("weight", texts, _A_WEIGHT).items():
        try:
            weights[metric] = float(amount)
        except ValueError:
            raise InvalidUsageError(
                f"--weight {metric}:{amount}: {amount!r} is not a number: write {_A_WEIGHT}"
            ) from None
    return weights
