"""Do the engines of the prompt and of the steps compute the model? A text whose tokens are given says it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layers.declarations.inference.generation import GenerationConfig
from workers.engine.verbs import GENERATE
from workers.processes.child import Child
from workers.processes.model_verbs import REFERENCE
from workers.trial import parity
from workers.trial.context import TrialContext
from workers.trial.generation.engines import GenerationEngines, keep_generation
from workers.trial.load import load_options
from workers.trial.outcomes import TrialEndedError


def write_inputs(context: TrialContext, config: GenerationConfig) -> None:
    """Write the prompts that are measured, and the text that is compared, of the validation split."""
    _write_beginnings(context.files.measured_inputs, config.prompt_tokens, context.files.prompts)
    _write_beginnings(context.files.parity_inputs, config.text_tokens, context.files.text)


def _write_beginnings(inputs: Path, tokens: int, path: Path) -> None:
    """Write the first tokens of each sequence, and all else that a model takes."""
    with np.load(inputs, allow_pickle=False) as arrays:
        given: dict[str, NDArray[Any]] = dict(arrays)
        np.savez(path, allow_pickle=False, **{**given, "tokens": given["tokens"][..., :tokens]})


TEXT_FACTOR = 20.0
"""How much longer a text may take than its steps were measured: its caches travel to the device at each step."""


def computes_the_same(
    context: TrialContext, process: Child, engines: GenerationEngines, *, text_seconds: float
) -> bool:
    """Let a process that has no engine loaded read a text step by step, and hold the logits of each step against those
    of PyTorch, which reads it at once. `text_seconds`: what its prompt and steps take by themselves.

    Engines that compute the same are kept for later trials. False if weights were put into earlier graphs which are
    another function with them. Raises TrialEndedError if the engines are not the model.
    """
    found = _compared(context, process, engines, context.limits.run_seconds + TEXT_FACTOR * text_seconds)
    coarsest = parity.coarsest(context.dtypes)
    tolerance = parity.tolerance(coarsest, context.quantization)
    measured = {"error": found.error, "worst": found.worst} if math.isfinite(found.error + found.worst) else {}
    context.record.extend_measurement("parity", {f"generation_{engines.name}": measured})
    if not found.kept(tolerance) and engines.is_transplanted:
        return False
    if not found.kept(tolerance):
        raise TrialEndedError(
            "failed",
            f"parity: the logits of prompt and steps are off by {found.error:.3g} ({found.worst:.3g} at the worst "
            f"token), {coarsest} allows {tolerance:g}: with cached keys and values they compute another function",
        )
    keep_generation(context, engines)
    return True


def _compared(context: TrialContext, process: Child, engines: GenerationEngines, limit_seconds: float) -> parity.Parity:
    files = context.files
    request = {
        "runtime": context.runtime,
        "prefill": str(engines.prefill.path),
        "steps": [{"engine": str(step.engine.path), "steps": step.bucket.steps} for step in engines.steps],
        "inputs": str(files.text),
        "outputs": str(files.engine_outputs),
        "options": load_options(context),
    }
    context.request(process, GENERATE, request, timeout_seconds=limit_seconds)
    context.request_model(
        REFERENCE, {"inputs": str(files.text), "outputs": str(files.reference_outputs)}, limit_seconds
    )
    with (
        np.load(files.engine_outputs, allow_pickle=False) as ours,
        np.load(files.reference_outputs, allow_pickle=False) as theirs,
    ):
        return parity.compare(ours["logits"], _answers(theirs["logits"], engines.config.prompt_tokens))


def _answers(logits_BTV: NDArray[Any], prompt_tokens: int) -> NDArray[Any]:
    """Those of the last token of the prompt and of each token after it."""
    return logits_BTV[:, prompt_tokens - 1 :]
