"""How much of its device's memory an attempt is expected to take, before anything of it is made."""

from __future__ import annotations

from layers.configuration import TrialConfiguration
from layers.declarations import model as models
from layers.declarations.inference.generation import kv_cache_bytes

PROCESS_BYTES = 1 << 30
"""Of a slot's processes, before they hold anything of a model: libraries, contexts, a builder's workspace."""

BYTES_A_PARAMETER = 16
"""In training, in float32: the weight, its gradient, and AdamW's two moments."""

BYTES_A_PRODUCT = 8
"""For each operation of the forward pass over the model's width. A product over `width` terms takes 2 * width
operations and leaves a number; with what stands between products it lies there about four times, in four bytes."""

ENGINE_COPIES = 2
"""Of an engine's weights, while they are built and while they run."""

NARROWEST = 16


def estimated_bytes(configuration: TrialConfiguration) -> float:
    """Parameters with what is kept of them in training, the activations of a batch, the engine with the keys and values
    of the texts that it generates, the processes."""
    model, training = configuration.model, configuration.training
    found = float(PROCESS_BYTES + ENGINE_COPIES * models.weights_bytes(model) + _cached_bytes(configuration))
    if training is None:
        return found
    operations = models.flops(model, training.batch_size, training.sequence_length, training.source_length)
    width = max(NARROWEST, int(model.get("hidden_size") or 0))
    return found + BYTES_A_PARAMETER * models.parameter_count(model) + BYTES_A_PRODUCT * operations / width


def _cached_bytes(configuration: TrialConfiguration) -> int:
    """Keys and values at the largest of the shapes, which are measured one after the other."""
    inference = configuration.document["inference"]
    at_shapes = [shape.section(inference) for shape in configuration.shapes] or [inference]
    return max(kv_cache_bytes(configuration.model, section) or 0 for section in at_shapes)
