"""How a trial is trained: the section `training`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from layers.dataset_facts import DatasetFacts, check_lengths
from layers.parameter import Parameter, ParameterError, Scalar, complete_section, fields_of, in_full
from layers.tolerance import near

LENGTHS = ("steps", "tokens", "seconds")
"""How long to train: exactly one of these."""

DEFAULT_STEPS = 500

CHECKPOINT = re.compile(r"checkpoint:(?P<name>[a-z0-9][a-z0-9._-]{0,63})(@(?P<digest>[0-9a-f]{64}))?", re.ASCII)
"""How a checkpoint is named as what a training begins with; a service adds the hash of its content."""
NO_CHECKPOINT = "none"

NANOGPT = "karpathy/nanoGPT config/train_shakespeare_char.py"

TRAINING: dict[str, Parameter] = {
    "steps": Parameter(
        type="integer",
        minimum=1,
        maximum=100_000_000,
        default=None,
        meaning="optimizer steps; left out, with neither tokens nor seconds given: 500",
        search={"values": [250, 500, 1000, 2000]},
    ),
    "tokens": Parameter(
        type="integer",
        minimum=1,
        maximum=10**15,
        default=None,
        meaning="tokens to train on, in place of steps; rounded up to whole steps",
        source="about 20 a parameter: Hoffmann et al. 2022, arXiv 2203.15556",
        search={"min": 100_000, "max": 10_000_000, "log": True},
    ),
    "seconds": Parameter(
        type="number",
        minimum=0.1,
        maximum=31_536_000,
        default=None,
        meaning="time to train, in place of steps; the result then depends on the machine",
        search={"values": [10, 30, 60]},
    ),
    "batch_size": Parameter(
        type="integer",
        minimum=1,
        maximum=65_536,
        default=32,
        meaning="sequences a step",
        source="12 on a CPU, 64 on a GPU: " + NANOGPT,
        search={"values": [16, 32, 64]},
    ),
    "sequence_length": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning="tokens of a training sequence; left out: inference.sequence_length",
        search={"values": [64, 128, 256]},
    ),
    "source_length": Parameter(
        type="integer",
        minimum=1,
        maximum=1_048_576,
        default=None,
        meaning="tokens of a training source (seq2seq); left out: inference.source_length",
        search={"values": [16, 32, 64]},
    ),
    "learning_rate": Parameter(
        type="number",
        minimum=1e-8,
        maximum=10.0,
        default=1e-3,
        meaning="highest learning rate (AdamW), reached after the warm-up",
        source=NANOGPT,
        search={"min": 1e-4, "max": 3e-3, "log": True},
    ),
    "min_learning_rate": Parameter(
        type="number",
        minimum=0.0,
        maximum=10.0,
        default=None,
        meaning="learning rate at the end of the cosine; left out: a tenth of learning_rate",
        source="Hoffmann et al. 2022, arXiv 2203.15556; " + NANOGPT,
        search={"min": 1e-6, "max": 1e-4, "log": True},
    ),
    "warmup_steps": Parameter(
        type="integer",
        minimum=0,
        maximum=10_000_000,
        default=None,
        meaning=(
            "steps of linear warm-up; left out: 100, but at most a fifth of steps; where training.seconds decides, it "
            "ends after a fifth of them at the latest"
        ),
        source=NANOGPT,
        search={"values": [0, 50, 100]},
    ),
    "beta1": Parameter(
        type="number",
        minimum=0.0,
        maximum=0.9999,
        default=0.9,
        meaning="decay of AdamW's mean",
        source="Kingma & Ba 2014, arXiv 1412.6980",
        search={"values": [0.9, 0.95]},
    ),
    "beta2": Parameter(
        type="number",
        minimum=0.0,
        maximum=0.99999,
        default=0.99,
        meaning="decay of AdamW's mean square",
        source=NANOGPT + ": larger than 0.95, as a step has few tokens",
        search={"values": [0.95, 0.99, 0.999]},
    ),
    "weight_decay": Parameter(
        type="number",
        minimum=0.0,
        maximum=10.0,
        default=0.1,
        meaning="decoupled decay of matrices; vectors (biases, norms) have none",
        source="Loshchilov & Hutter 2017, arXiv 1711.05101; " + NANOGPT,
        search={"values": [0.0, 0.01, 0.1]},
    ),
    "dropout": Parameter(
        type="number",
        minimum=0.0,
        maximum=0.9,
        default=0.0,
        meaning="share dropped of embeddings, attention weights and what each layer adds, in training only",
        source="Srivastava et al. 2014; 0.2 in " + NANOGPT,
        search={"values": [0.0, 0.1, 0.2]},
    ),
    "initialization": Parameter(
        type="string",
        choices=("gpt2", "fan_in"),
        default="gpt2",
        meaning=(
            "deviation of the initial matrices: gpt2: 0.02; fan_in: the root of 1 / inputs, better where hidden_size "
            "is far below GPT-2's 768. The last products of attention and feed-forward, which write to the residual "
            "stream, start smaller by the root of how many of them a stack has; tables at 0.02, biases at 0"
        ),
        source="Radford et al. 2019; LeCun et al. 1998, Efficient BackProp",
        search={"values": ["gpt2", "fan_in"]},
    ),
    "gradient_clip": Parameter(
        type="number",
        minimum=0.0,
        maximum=1e6,
        default=1.0,
        meaning="highest norm of the gradient; 0: not clipped",
        source=NANOGPT,
        search={"values": [0.0, 0.5, 1.0]},
    ),
    "eval_every": Parameter(
        type="integer",
        minimum=1,
        maximum=10_000_000,
        default=100,
        meaning="steps between validation losses",
        search={"values": [50, 100, 200]},
    ),
    "patience": Parameter(
        type="integer",
        minimum=0,
        maximum=10_000,
        default=0,
        meaning="validation losses without a new best after which training stops early; 0: never",
        source="Prechelt 1998, Early Stopping",
        search={"values": [0, 3, 5]},
    ),
    "initialize_from": Parameter(
        type="string",
        default=None,
        meaning=(
            "weights to begin with: checkpoint:NAME, of which every tensor is taken that has the same name and shape, "
            "or none; left out: none"
        ),
        source="Hendrycks et al. 2019, arXiv 1901.09960",
    ),
    "trainable": Parameter(
        type="string",
        choices=("all", "prompt"),
        default="all",
        meaning="what is trained: all weights, or the prompt of a PromptTuningEmbedding alone, the rest frozen",
        source="Lester et al. 2021, arXiv 2104.08691",
        search={"values": ["all", "prompt"]},
    ),
    "seed": Parameter(
        type="integer",
        minimum=0,
        maximum=2**31 - 1,
        default=0,
        meaning="of initial weights, batches and dropout",
        search={"values": [0, 1, 2]},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a trial is trained: a completed section `training`. One of `steps`, `tokens` and `seconds` is given."""

    batch_size: int
    sequence_length: int
    learning_rate: float
    min_learning_rate: float
    warmup_steps: int
    beta1: float
    beta2: float
    weight_decay: float
    gradient_clip: float
    eval_every: int
    patience: int
    seed: int
    dropout: float
    initialization: str = "gpt2"
    initialize_from: str | None = None
    trainable: str = "all"
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    source_length: int | None = None

    @classmethod
    def of(cls, section: Mapping[str, Scalar]) -> TrainingConfig:
        return cls(**fields_of(section, TRAINING))

    @property
    def checkpoint(self) -> tuple[str, str] | None:
        """The name and the hash of what it begins with; None: with random weights."""
        found = CHECKPOINT.fullmatch(self.initialize_from or "")
        return None if found is None else (found["name"], found["digest"] or "")

    def step_count(self) -> int | None:
        """Optimizer steps; None if `seconds` decides."""
        return _step_count(self.steps, self.tokens, self.batch_size * self.sequence_length)


def complete_training(
    values: Mapping[str, Scalar],
    inference: Mapping[str, Scalar],
    task: str = "causal_lm",
    facts: DatasetFacts | None = None,
) -> dict[str, Scalar]:
    """Return the section `training` with its defaults; of steps, tokens and seconds only the one that rules.

    `inference` is the completed section, `facts` are the dataset's.
    Raises ParameterError. Completing twice changes nothing.
    """
    lengths = [name for name in LENGTHS if name in values]
    if len(lengths) > 1:
        message = f"{' and '.join(lengths)} are both given"
        raise ParameterError(f"training.{lengths[1]}", message, f"give one of {', '.join(LENGTHS)}")
    training = complete_section("training", TRAINING, values)
    if not lengths:
        training["steps"] = DEFAULT_STEPS
    for name in ("sequence_length", "source_length"):
        if name in inference:
            training.setdefault(name, inference[name])
    check_lengths("training", training, task, facts or {})
    _check_checkpoint(training.get("initialize_from"))
    highest = float(training["learning_rate"])
    lowest = float(training.setdefault("min_learning_rate", highest / 10))
    if lowest > highest and not near(lowest, highest):
        message = f"{in_full(lowest)} is above learning_rate {in_full(highest)}"
        raise ParameterError("training.min_learning_rate", message, "at most learning_rate, or leave it out")
    steps = step_count(training)
    warmup = int(training.setdefault("warmup_steps", 100 if steps is None else min(100, steps // 5)))
    if steps is not None and warmup > steps:
        message = f"{warmup} steps of warm-up are more than the {steps} steps of training"
        raise ParameterError("training.warmup_steps", message, f"at most {steps}, or leave it out")
    return {name: training[name] for name in TRAINING if name in training}


def _check_checkpoint(written: Scalar | None) -> None:
    if written not in (None, NO_CHECKPOINT) and CHECKPOINT.fullmatch(str(written)) is None:
        remedy = "write checkpoint:NAME of one that was uploaded, or none"
        raise ParameterError("training.initialize_from", f"{written!r} names no checkpoint", remedy)


def step_count(training: Mapping[str, Scalar]) -> int | None:
    """Optimizer steps of a completed section; None if `seconds` decides."""
    steps, tokens = (int(training[name]) if name in training else None for name in ("steps", "tokens"))
    return _step_count(steps, tokens, int(training["batch_size"]) * int(training["sequence_length"]))


def _step_count(steps: int | None, tokens: int | None, tokens_a_step: int) -> int | None:
    if steps is None and tokens is not None:
        return -(-tokens // tokens_a_step)
    return steps
