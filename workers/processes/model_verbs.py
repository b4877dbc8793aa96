"""The verbs of the torch child, each with the type of its answer. What they do is said in torch_child.py."""

from __future__ import annotations

from typing import TypedDict

from workers.engine.protocol import Verb
from workers.engine.verbs import Nothing


class TorchFacts(TypedDict):
    """Where PyTorch computes, and with what."""

    device: str
    torch: str
    threads: int


class PrepareAnswer(TypedDict):
    parameter_count: int
    initialized: int
    """Tensors that were taken of a checkpoint."""
    left: dict[str, str]
    """Tensors that were not, each with the reason; none without a checkpoint."""


class ExportAnswer(TypedDict):
    seconds: float
    quantized_products: int
    transplanted: bool
    """Whether the weights were put into a graph that was exported before."""


class ExportGenerationAnswer(TypedDict):
    seconds: float
    transplanted: bool
    """Whether the weights were put into graphs that were exported before."""


class TrainingMemory(TypedDict, total=False):
    device_memory_bytes: int
    """The most that PyTorch reserved; absent on the CPU."""


class TrainAnswer(TorchFacts, TrainingMemory):
    """How a training went."""

    stopped: str
    reason: str
    """Why it ended before its budget; empty if it did not."""
    steps: int
    tokens: int
    seconds: float
    paused_seconds: float
    best_step: int
    best_validation_loss: float | None


class EvaluateAnswer(TypedDict):
    """Mean cross-entropy in nats and share of right answers over the positions that count."""

    loss: float
    accuracy: float
    targets: float


DESCRIBE = Verb[TorchFacts]("describe")
PREPARE = Verb[PrepareAnswer]("prepare")
EXPORT = Verb[ExportAnswer]("export")
EXPORT_GENERATION = Verb[ExportGenerationAnswer]("export_generation")
REFERENCE = Verb[Nothing]("reference")
TRAIN = Verb[TrainAnswer]("train")
EVALUATE = Verb[EvaluateAnswer]("evaluate")
SAVE = Verb[Nothing]("save")
RELEASE = Verb[Nothing]("release")
