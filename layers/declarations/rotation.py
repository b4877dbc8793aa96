"""Rotary positions: what may be set of the rotation of queries and keys, and of its stretching to longer sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

TYPES = ("rope_gpt_neox", "rope_gptj")
SCALE_TYPES = ("none", "linear", "llama3", "yarn")

PARAMETERS: dict[str, Parameter] = {
    "rotary_embedding_base": Parameter(
        type="number",
        minimum=1.0,
        maximum=1e9,
        default=10_000.0,
        meaning="base of the rotations' wavelengths",
        source="Su et al. 2021, arXiv 2104.09864",
        search={"values": [10_000.0, 100_000.0, 500_000.0]},
    ),
    "rotary_embedding_percentage": Parameter(
        type="number",
        minimum=0.0,
        maximum=1.0,
        default=1.0,
        meaning="share of a head's channels that is rotated: head size times it, rounded down",
        source="TensorRT-LLM layers; 0.25: Black et al. 2022, arXiv 2204.06745",
        search={"values": [0.25, 0.5, 1.0]},
    ),
    "rotary_embedding_scale_type": Parameter(
        type="string",
        choices=SCALE_TYPES,
        default=None,
        meaning=(
            "how rotations are stretched to sequences longer than those first trained on: positions divided by the "
            "scale (linear), long wavelengths alone divided (llama3), or wavelengths by how often they turn, with "
            "larger queries and keys (yarn); left out: none"
        ),
        source="Chen et al. 2023, arXiv 2306.15595; Grattafiori et al. 2024, arXiv 2407.21783; Peng et al. 2023, "
        "arXiv 2309.00071",
        search={"values": ["none", "linear", "llama3", "yarn"]},
    ),
    "rotary_embedding_scale": Parameter(
        type="number",
        minimum=1.0,
        maximum=1024.0,
        default=8.0,
        meaning="how many times longer sequences become",
        source="TensorRT-LLM layers; Grattafiori et al. 2024, arXiv 2407.21783: 8 (Llama 3.1), 32 (Llama 3.2)",
        search={"values": [2.0, 4.0, 8.0, 32.0]},
    ),
    "original_max_position_embeddings": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=8192,
        meaning="the longest sequence before stretching",
        source="TensorRT-LLM layers; Grattafiori et al. 2024, arXiv 2407.21783: 8192",
        search={"values": [2048, 4096, 8192]},
    ),
    "rotary_embedding_low_freq_factor": Parameter(
        type="number",
        minimum=0.01,
        maximum=1024.0,
        default=1.0,
        meaning="channels that turn less often than this within the original length are divided by the scale",
        source="Grattafiori et al. 2024, arXiv 2407.21783 (their code): 1",
        search={"values": [1.0, 2.0]},
    ),
    "rotary_embedding_high_freq_factor": Parameter(
        type="number",
        minimum=0.01,
        maximum=1024.0,
        default=4.0,
        meaning="channels that turn more often than this within the original length stay as they are",
        source="Grattafiori et al. 2024, arXiv 2407.21783 (their code): 4",
        search={"values": [4.0, 8.0]},
    ),
    "rotary_embedding_beta_fast": Parameter(
        type="number",
        minimum=0.01,
        maximum=1024.0,
        default=32.0,
        meaning="channels that turn more often than this within the original length stay as they are",
        source="Peng et al. 2023, arXiv 2309.00071: 32",
        search={"values": [16.0, 32.0]},
    ),
    "rotary_embedding_beta_slow": Parameter(
        type="number",
        minimum=0.01,
        maximum=1024.0,
        default=1.0,
        meaning="channels that turn less often than this within the original length are divided by the scale",
        source="Peng et al. 2023, arXiv 2309.00071: 1",
        search={"values": [1.0, 2.0]},
    ),
}

_SCALE_TYPE = "attention.rotary_embedding_scale_type"
_ROTATED = Condition("attention.position_embedding_type", TYPES)

APPLIES: dict[str, Condition] = {
    "rotary_embedding_base": _ROTATED,
    "rotary_embedding_percentage": _ROTATED,
    "rotary_embedding_scale_type": _ROTATED,
    "rotary_embedding_scale": Condition(_SCALE_TYPE, SCALE_TYPES[1:]),
    "original_max_position_embeddings": Condition(_SCALE_TYPE, ("llama3", "yarn")),
    "rotary_embedding_low_freq_factor": Condition(_SCALE_TYPE, ("llama3",)),
    "rotary_embedding_high_freq_factor": Condition(_SCALE_TYPE, ("llama3",)),
    "rotary_embedding_beta_fast": Condition(_SCALE_TYPE, ("yarn",)),
    "rotary_embedding_beta_slow": Condition(_SCALE_TYPE, ("yarn",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationConfig:
    """The rotation of one layer's queries and keys."""

    rotated_channels: int
    """Of each head; the others pass unchanged."""
    positions: int
    base: float
    interleaved: bool
    """Whether a channel is paired with its neighbour (rope_gptj), not with the one half a head away (rope_gpt_neox)."""
    scale_type: str
    scale: float
    original_positions: int
    low_freq_factor: float
    high_freq_factor: float
    beta_fast: float
    beta_slow: float


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """Of a model whose heads are rotated and have a size."""
    size = int(model["attention.attention_head_size"])
    rotated = int(size * float(model["attention.rotary_embedding_percentage"]))
    if rotated < 2 or rotated % 2:
        message = f"{rotated} of {size} channels of a head would be rotated: it must be an even number, at least 2"
        paths = ("attention.attention_head_size", "attention.rotary_embedding_percentage")
        yield Violation("rotary dimension even", message, paths)
    for kind, lower, higher in (("llama3", "low_freq_factor", "high_freq_factor"), ("yarn", "beta_slow", "beta_fast")):
        paths = (f"attention.rotary_embedding_{lower}", f"attention.rotary_embedding_{higher}")
        if model.get(_SCALE_TYPE) == kind and not float(model[paths[0]]) < float(model[paths[1]]):
            message = f"{lower} {model[paths[0]]:g} must be below {higher} {model[paths[1]]:g}"
            yield Violation(f"{lower} < {higher}", message, paths)
    if model.get(_SCALE_TYPE) == "yarn" and float(model["attention.rotary_embedding_base"]) <= 1.0:
        message = "yarn stretches wavelengths that grow from channel to channel: the base must be above 1"
        yield Violation("rotary_embedding_base > 1", message, ("attention.rotary_embedding_base", _SCALE_TYPE))
