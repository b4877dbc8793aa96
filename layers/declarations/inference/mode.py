"""What is measured: sequences that are read at once, or a prompt and the tokens that are generated after it."""

from __future__ import annotations

from collections.abc import Mapping

from layers.parameter import Parameter, ParameterError, Scalar

FORWARD, GENERATE = "forward", "generate"

LENGTHS = ("prompt_tokens", "new_tokens")
"""Parameters that the mode `generate` needs, and `forward` has not."""

NOT_OF_FORWARD = "does not apply: nothing is generated in mode forward"
"""What is said of such a length in the mode `forward`."""

TASKS = ("causal_lm", "seq2seq")
"""Those whose models generate."""

SEQ2SEQ = "seq2seq"

PARAMETERS: dict[str, Parameter] = {
    "mode": Parameter(
        type="string",
        choices=(FORWARD, GENERATE),
        default=None,
        meaning=(
            "forward: sequences that are read at once; generate, of a causal_lm or seq2seq: beside them a prompt, and "
            "then token after token with cached keys and values; left out: forward"
        ),
    ),
    "prompt_tokens": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning="tokens of a prompt, in the mode generate; of a seq2seq's target, whose source is read before: 1",
        search={"values": [32, 128, 512]},
    ),
    "new_tokens": Parameter(
        type="integer",
        minimum=2,
        maximum=1_048_576,
        default=None,
        meaning="tokens that are generated after a prompt, in the mode generate",
        search={"values": [32, 128, 512]},
    ),
}
"""Of the section `inference`."""


def is_generated(inference: Mapping[str, Scalar]) -> bool:
    """Whether a section `inference` is of the mode `generate`."""
    return inference.get("mode") == GENERATE


def default_lengths(values: Mapping[str, Scalar], task: str, fixed: Mapping[str, int]) -> dict[str, Scalar]:
    """What follows from a prompt and the tokens after it, if a section gives them. Raises ParameterError.

    `fixed`: the lengths that a dataset's sequences have at least.
    """
    if not is_generated(values):
        return {}
    # A target begins with its start, and what it is about is the source.
    defaults: dict[str, Scalar] = {"prompt_tokens": 1} if task == SEQ2SEQ else {}
    given = {**defaults, **values}
    if any(name not in given for name in LENGTHS):
        return defaults
    lengths = [PARAMETERS[name].check(f"inference.{name}", given[name]) for name in LENGTHS]
    return {**defaults, "sequence_length": max(sum(map(int, lengths)), fixed.get("sequence_length", 0))}


def follow(inference: dict[str, Scalar], task: str) -> None:
    """Complete a section in place. Raises ParameterError if it generates what cannot be, or less than it says."""
    if not is_generated(inference):
        # As if it were not said: the same trial has one name.
        inference.pop("mode", None)
        for name in filter(inference.__contains__, LENGTHS):
            raise ParameterError(f"inference.{name}", NOT_OF_FORWARD, "leave it out, or give mode: generate")
        return
    if task not in TASKS:
        message = f"generate is of {' or '.join(TASKS)}: the output of a {task} is no text"
        raise ParameterError("inference.mode", message, "leave it out: forward")
    for name in LENGTHS:
        if name not in inference:
            message = "is missing: mode generate needs it"
            raise ParameterError(f"inference.{name}", message, f"give {PARAMETERS[name].meaning}")
    generated, length = sum(int(inference[name]) for name in LENGTHS), int(inference["sequence_length"])
    if length < generated:
        message = f"{length} is shorter than prompt_tokens + new_tokens = {generated}"
        raise ParameterError("inference.sequence_length", message, "leave it out, or make it longer")
