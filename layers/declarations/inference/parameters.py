"""The shape that is measured, and what the engine's builder is told: the section `inference`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.dataset_facts import DatasetFacts, check_lengths, fixed_lengths
from layers.declarations.inference import mode
from layers.parameter import Parameter, Scalar, complete_section, fields_of

INFERENCE: dict[str, Parameter] = {
    "batch_size": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=8,
        meaning="sequences of one measured inference",
        search={"values": [1, 8, 32]},
    ),
    "sequence_length": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=128,
        meaning=(
            "tokens of a measured sequence, of a seq2seq's target; data of rows or pairs gives its own default, mode "
            "generate prompt_tokens + new_tokens"
        ),
        search={"values": [64, 128, 256]},
    ),
    "optimization_level": Parameter(
        type="integer",
        minimum=0,
        maximum=5,
        default=None,
        meaning="how long TensorRT's builder searches for the fastest kernels; left out: the library's 3",
        source="TensorRT, IBuilderConfig.builder_optimization_level",
        search={"values": [1, 3, 5]},
    ),
    "workspace_mib": Parameter(
        type="integer",
        minimum=1,
        maximum=1 << 20,
        default=None,
        meaning="scratch memory that TensorRT's kernels may use; left out: all of the device's",
        source="TensorRT, MemoryPoolType.WORKSPACE",
        search={"values": [256, 1024, 4096]},
    ),
    "weights_mib": Parameter(
        type="integer",
        minimum=1,
        maximum=1 << 20,
        default=None,
        meaning="weights that stay on the device; the others come from the host at each run; left out: all stay",
        source="TensorRT, ICudaEngine.weight_streaming_budget_v2",
        search={"values": [16, 64, 256]},
    ),
    "source_length": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning=(
            "tokens of a measured source (seq2seq, and probes with cross attention); left out: the dataset's longest, "
            "else sequence_length"
        ),
        search={"values": [16, 32, 64]},
    ),
    **mode.PARAMETERS,
}

BUILD_OPTIONS = ("optimization_level", "workspace_mib", "weights_mib")
"""Parameters of `inference` that say how an engine is built, if the runtime's builder takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceConfig:
    """The shape that is measured, and what the engine's builder is told: a completed section `inference`."""

    batch_size: int
    sequence_length: int
    source_length: int | None = None
    optimization_level: int | None = None
    workspace_mib: int | None = None
    weights_mib: int | None = None
    mode: str = mode.FORWARD
    prompt_tokens: int | None = None
    new_tokens: int | None = None

    @classmethod
    def of(cls, section: Mapping[str, Scalar]) -> InferenceConfig:
        return cls(**fields_of(section, INFERENCE))

    def build_options(self) -> dict[str, int]:
        """Those that were given."""
        options = {name: getattr(self, name) for name in BUILD_OPTIONS}
        return {name: value for name, value in options.items() if value is not None}


def complete_inference(
    values: Mapping[str, Scalar], task: str = "causal_lm", facts: DatasetFacts | None = None
) -> dict[str, Scalar]:
    """Return the section `inference` with its defaults, or raise ParameterError. `facts` are the dataset's."""
    known: DatasetFacts = facts or {}
    fixed = fixed_lengths(task, known)
    lengths = {**fixed, **mode.default_lengths(values, task, fixed)}
    inference = complete_section("inference", INFERENCE, {**lengths, **values})
    if task == "seq2seq":
        inference.setdefault("source_length", inference["sequence_length"])
    mode.follow(inference, task)
    check_lengths("inference", inference, task, known)
    return inference
