"""The inputs and outputs of a model: names, types and shapes, in the order of its module's `forward`.

Letters: B sequences, T tokens, S source tokens, D width, V rows of the embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.configuration import TrialConfiguration
from layers.declarations.embedding import PROMPT_TUNING
from layers.declarations.kinds import KINDS, kinds_of
from layers.declarations.masks import PADDING_MASKS
from layers.declarations.per_layer import mask_types
from layers.parameter import ParameterError, Scalar


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that crosses the boundary of a model. `dtype` by its ONNX and NumPy name."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    Inputs, as far as a model has them: `tokens` int32 [B, T] (an encoder_decoder's: the decoder's), `source` int32
    [B, S], `source_mask` int32 [B, S] and `token_mask` int32 [B, T] (1 a token, 0 padding), `attention_mask` int32
    [B, T, T] (1 if a query, by row, may attend to a key), and of probes `hidden_states` float32 [B, T, D] and
    `encoder_output` float32 [B, S, D]; `tasks` int32 [B], whose prompt each sequence reads.
    Outputs: `logits` [B, T, V], a classifier's [B, C]; of probes `output`. They are in the model's number format.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def signature(
    task: str, model: Mapping[str, Scalar], batch_size: int, sequence_length: int, source_length: int | None = None
) -> Signature:
    """The signature of a completed model at a shape. `source_length` left out: sequence_length."""
    kind = str(model["kind"])
    if KINDS[kind].task != task:
        raise ParameterError("kind", f"{kind!r} is not a kind for {task}", f"one of: {', '.join(kinds_of(task))}")
    batch, length, source = batch_size, sequence_length, source_length or sequence_length
    tokens = TensorSpec("tokens", "int32", (batch, length))

    def outputs(name: str, *shape: int) -> tuple[TensorSpec, ...]:
        # tf32 is of products: what leaves a model is float32.
        dtype = "float32" if model["dtype"] == "tf32" else str(model["dtype"])
        return (TensorSpec(name, dtype, shape),)

    if kind == "decoder":
        return Signature((tokens,), outputs("logits", batch, length, int(model["embedding.num_embeddings"])))
    if kind == "encoder":
        masks = _masks(model, batch, length, length)
        return Signature((tokens, *masks), outputs("logits", batch, int(model["classes"])))
    if kind == "encoder_decoder":
        sources = (TensorSpec("source", "int32", (batch, source)), TensorSpec("source_mask", "int32", (batch, source)))
        return Signature((*sources, tokens), outputs("logits", batch, length, int(model["embedding.num_embeddings"])))
    if kind == "embedding":
        tasks = (TensorSpec("tasks", "int32", (batch,)),) if model["embedding.kind"] == PROMPT_TUNING else ()
        return Signature((tokens, *tasks), outputs("output", batch, length, int(model["hidden_size"])))
    if kind == "linear":
        hidden = TensorSpec("hidden_states", "float32", (batch, length, int(model["linear.in_features"])))
        return Signature((hidden,), outputs("output", batch, length, int(model["linear.out_features"])))
    width = int(model["hidden_size"])
    hidden = TensorSpec("hidden_states", "float32", (batch, length, width))
    encoded: tuple[TensorSpec, ...] = ()
    masks = ()
    if kind in ("block", "attention"):
        crosses = model["attention.cross_attention"]
        encoded = (TensorSpec("encoder_output", "float32", (batch, source, width)),) if crosses else ()
        # A block's mask is of its self-attention; a cross-attending layer has no other tokens than the encoder's.
        masks = _masks(model, batch, length, source if crosses and kind == "attention" else length)
    return Signature((hidden, *encoded, *masks), outputs("output", batch, length, width))


def _masks(model: Mapping[str, Scalar], batch: int, queries: int, keys: int) -> tuple[TensorSpec, ...]:
    """The masks that are given with the data: one for all layers."""
    masks = mask_types(model)
    if masks & set(PADDING_MASKS):
        return (TensorSpec("token_mask", "int32", (batch, keys)),)
    if "custom_mask" in masks:
        return (TensorSpec("attention_mask", "int32", (batch, queries, keys)),)
    return ()


def signature_of(configuration: TrialConfiguration) -> Signature:
    """The signature of a trial's model at the shape that is measured."""
    shape = configuration.inference
    return signature(
        configuration.task, configuration.model, shape.batch_size, shape.sequence_length, shape.source_length
    )
