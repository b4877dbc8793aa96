"""The inputs on which an attempt's engine is compared and measured: of the validation split, or a probe's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layers.parameter import Scalar
from layers.signature import Signature
from workers.data.batches import Batches

INPUT_SETS = 4
"""Batches that a measurement rotates over, if there are so many."""

PROBE_SEED = 0

Inputs = Mapping[str, NDArray[Any]]
"""By name, each [sets, ...]."""


def data_inputs(validation: Batches) -> Inputs:
    """The first batches of the validation split."""
    return {name: array[:INPUT_SETS] for name, array in validation.inputs.items()}


def probe_inputs(signature: Signature, model: Mapping[str, Scalar]) -> Inputs:
    """Inputs for a layer alone, the same in every attempt: normal activations, as a norm would give them; tokens of
    the whole vocabulary; masks that hide something of every sequence (its end, or what comes later)."""
    generator = np.random.default_rng(PROBE_SEED)
    inputs: dict[str, NDArray[Any]] = {}
    for given in signature.inputs:
        shape = (INPUT_SETS, *given.shape)
        match given.name:
            case "tokens":
                # With prompts, ids beyond the vocabulary are those of the prompt.
                prompts = int(model.get("embedding.prompt_length", 0))
                first = int(model.get("embedding.vocab_size", model["embedding.num_embeddings"]))
                array = generator.integers(0, first + prompts, shape)
            case "tasks":
                array = generator.integers(0, int(model["embedding.num_tasks"]), shape)
            case "token_mask":
                lengths = generator.integers(-(-shape[-1] // 2), shape[-1] + 1, shape[:-1])
                array = np.arange(shape[-1]) < lengths[..., None]
            case "attention_mask":
                array = np.broadcast_to(np.tri(shape[-2], shape[-1], dtype=bool), shape)
            case _:
                array = generator.standard_normal(shape)
        inputs[given.name] = array.astype(given.dtype)
    return inputs


def save_inputs(folder: Path, inputs: Inputs) -> None:
    """Write `parity.npz`, one batch, and `measure.npz`, the sets that a measurement rotates over."""
    np.savez(folder / "parity.npz", allow_pickle=False, **{name: array[0] for name, array in inputs.items()})
    np.savez(folder / "measure.npz", allow_pickle=False, **inputs)
