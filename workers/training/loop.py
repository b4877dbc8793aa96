"""The training loop: AdamW, warm-up and cosine decay, clipping, best checkpoint, patience, divergence.

Everything random comes from `training.seed`: the same configuration gives the same losses, bit for bit, on the same
machine with the same number of threads (but not with a budget in seconds, whose steps depend on the machine).
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import nn

from layers.declarations.training import TrainingConfig
from workers.data.batches import Batch, Batches
from workers.data.splits import Split
from workers.training.reference import score
from workers.training.step import StepState, step_for

Stopped = Literal["budget", "patience", "diverged", "non_finite", "asked"]

REPORTS = 100
"""Points of a training curve, beside those where the validation loss was taken."""

WARMUP_SHARE = 0.2
"""With a budget in seconds, the share of it after which the warm-up is over, however few steps that were."""

DIVERGED_FACTOR = 2.0
"""Diverged: the running mean of the training loss is this many times what guessing, or the untrained model, scores."""

RUNNING_MEAN_STEPS = 20

STEPS_A_CUDA_READ = 10
"""Losses are read from a GPU so many steps at a time: reading each would wait for each."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the curve. Losses in nats a target; `seconds` of training; `fraction` of the budget."""

    step: int
    tokens: int
    seconds: float
    fraction: float
    learning_rate: float
    training_loss: float | None = None
    """Mean over the steps since the point before."""
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went. The module holds the weights of `best_step`, unless it diverged or was stopped."""

    stopped: Stopped
    reason: str
    steps: int
    tokens: int
    seconds: float
    paused_seconds: float
    """Before steps that had to wait. They are in no other figure and in no budget."""
    best_step: int
    best_validation_loss: float | None


@dataclass(slots=True)
class _Position:
    """Where a training stands."""

    step: int = 0
    reported: int = 0
    """Hundredths of the budget that have a point of the curve."""
    warmed_up_at: float | None = None
    """The fraction of the budget that was used when the warm-up was over."""


class TrainingState(TypedDict):
    """All that a stopped training needs to go on as if it had not been stopped. Batches follow from seed and step."""

    step: int
    reported: int
    warmed_up_at: float | None
    seconds: float
    since_report: list[float]
    watch: tuple[float | None, float, int]
    best: BestState
    weights: dict[str, torch.Tensor]
    update: StepState
    random: torch.Tensor
    """Of the processor's generator, from which dropout draws there."""
    device_random: torch.Tensor | None
    """Of the GPU's; None on the CPU."""


class BestState(TypedDict):
    """The weights of the lowest validation loss, if there is one, and how many evaluations ago that was."""

    step: int
    loss: float | None
    waited: int
    weights: dict[str, torch.Tensor] | None


class Training:
    """One training of one module, in place.

    `split` is the training split, `validation` the fixed sample of the validation split by which the best checkpoint is
    chosen. `names` are the module's inputs in the order of its `forward`, `choices` the logits of one target.
    """

    def __init__(
        self,
        module: nn.Module,
        split: Split,
        validation: Batches,
        training: TrainingConfig,
        *,
        names: Sequence[str],
        choices: int,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._module = module
        self._split = split
        self._validation = validation
        self._training = training
        self._names = names
        self._choices = choices
        self._device = device
        self._clock = clock
        self._steps = training.step_count()
        self._one_step = step_for(module, training, names=names, device=device)
        self._started_at = self._paused_seconds = 0.0
        self._unread: list[torch.Tensor] = []
        self._since_report: list[float] = []
        self._watch = _DivergenceMonitor(choices)
        self._best = _BestWeights(training.patience)
        self._at = _Position()

    def state(self) -> TrainingState:
        """Where it stands, once `run` has answered that it was stopped as asked."""
        cuda = self._device.type == "cuda"
        return {
            "step": self._at.step,
            "reported": self._at.reported,
            "warmed_up_at": self._at.warmed_up_at,
            "seconds": self._trained_seconds(),
            "since_report": list(self._since_report),
            "watch": self._watch.state(),
            "best": self._best.state(),
            "weights": self._module.state_dict(),
            "update": self._one_step.state(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self._device) if cuda else None,
        }

    def run(
        self,
        report: Callable[[Point], None],
        *,
        alive: Callable[[int, float], None] = lambda step, fraction: None,
        pause: Callable[[], float] = lambda: 0.0,
        stop: threading.Event | None = None,
        resume: TrainingState | None = None,
    ) -> Trained:
        """Train to the end of the budget, or until something ends it before.

        `report` is told each point of the curve, `alive` each step with the fraction of the budget that is used.
        `pause` is called before each step, and answers for how many seconds it kept the training waiting.
        `stop` can be set by another thread; training then ends after the step that it is in. `resume`: the state of an
        earlier training of the same configuration, which this one continues with the same losses, bit for bit.
        """
        training, device = self._training, self._device
        # Of the global generator, from which dropout draws; batches have a generator of their own.
        torch.manual_seed(derived_seed(training.seed, "dropout"))
        generator = np.random.default_rng(derived_seed(training.seed, "batches"))
        batches = self._split.training(generator, training.batch_size)
        best, at = self._best, self._at
        self._started_at, self._paused_seconds = self._clock(), 0.0
        learning_rate = 0.0
        self._module.train()
        if resume is not None:
            self._take_up(resume)
            for _ in range(at.step):
                next(batches)

        def point(**losses: float) -> Point:
            seconds = self._trained_seconds()
            tokens = at.step * training.batch_size * training.sequence_length
            return Point(at.step, tokens, seconds, self._fraction(at.step, seconds), learning_rate, **losses)

        def ended(stopped: Stopped, reason: str) -> Trained:
            now = point()
            return Trained(
                stopped, reason, at.step, now.tokens, now.seconds, self._paused_seconds, best.step, best.loss
            )

        while True:
            self._paused_seconds += pause()
            fraction = self._fraction(at.step, self._trained_seconds())
            warmup_fraction = self._warmup_fraction(at.step, fraction)
            if warmup_fraction >= 1 and at.warmed_up_at is None:
                at.warmed_up_at = fraction
            learning_rate = self._learning_rate(warmup_fraction, fraction, at.warmed_up_at)
            self._step(next(batches), learning_rate)
            at.step = step = at.step + 1
            fraction = self._fraction(step, self._trained_seconds())
            alive(step, fraction)
            last = fraction >= 1
            evaluating = last or step % training.eval_every == 0
            reporting = evaluating or int(fraction * REPORTS) > at.reported
            is_asked = stop is not None and stop.is_set()
            reading = reporting or is_asked or device.type == "cpu" or len(self._unread) >= STEPS_A_CUDA_READ
            if reading and (ending := self._read(step, warm=warmup_fraction >= 1)) is not None:
                return ended(*ending)
            if evaluating:
                loss = score(self._module, self._validation, self._names, device, choices=self._choices).loss
                if not math.isfinite(loss):
                    return ended("non_finite", f"the validation loss is not finite at step {step}")
                best.take(step, loss, self._module, last=last)
                report(point(training_loss=self._mean(), validation_loss=loss))
            elif reporting:
                report(point(training_loss=self._mean()))
            at.reported = max(at.reported, int(fraction * REPORTS))
            if last or best.patience_is_over:
                best.restore(self._module)
                if last:
                    return ended("budget", "")
                return ended("patience", f"no new best validation loss in {training.patience} evaluations")
            if is_asked:
                return ended("asked", "stopped as asked")

    def _take_up(self, resume: TrainingState) -> None:
        """Stand where the earlier training stood."""
        self._module.load_state_dict(resume["weights"])
        self._one_step.take_up(resume["update"])
        self._best.take_up(resume["best"])
        self._watch.take_up(resume["watch"])
        self._since_report = list(resume["since_report"])
        self._at.step, self._at.reported = resume["step"], resume["reported"]
        self._at.warmed_up_at = resume["warmed_up_at"]
        self._started_at -= resume["seconds"]
        torch.set_rng_state(resume["random"])
        if resume["device_random"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(resume["device_random"], self._device)

    def _step(self, batch: Batch, learning_rate: float) -> None:
        self._unread.append(self._one_step.take(batch, learning_rate))

    def _read(self, step: int, *, warm: bool) -> tuple[Stopped, str] | None:
        """Read the losses of the steps up to `step`; what is wrong with them, if something is."""
        losses = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        self._since_report += losses
        for number, loss in enumerate(losses, step - len(losses) + 1):
            if (ending := self._watch.feed(number, loss, warm=warm)) is not None:
                return ending
        return None

    def _mean(self) -> float:
        mean = sum(self._since_report) / len(self._since_report)
        self._since_report.clear()
        return mean

    def _trained_seconds(self) -> float:
        return self._clock() - self._started_at - self._paused_seconds

    def _fraction(self, step: int, seconds: float) -> float:
        """How much of the budget is used."""
        if self._steps is not None:
            return step / self._steps
        assert self._training.seconds is not None
        return max(0.0, seconds / self._training.seconds)

    def _warmup_fraction(self, step: int, fraction: float) -> float:
        """How far the warm-up is; 1 or more when it is over."""
        warmup_fraction = (step + 1) / (self._training.warmup_steps + 1)
        return warmup_fraction if self._steps is not None else max(warmup_fraction, fraction / WARMUP_SHARE)

    def _learning_rate(self, warmup_fraction: float, fraction: float, warmed_up_at: float | None) -> float:
        """Linear to the highest rate, which the first step after the warm-up has; then a half cosine over what is left
        of the budget to the lowest (karpathy/nanoGPT loop.py, get_lr)."""
        highest, lowest = self._training.learning_rate, self._training.min_learning_rate
        if warmed_up_at is None:
            return highest * warmup_fraction
        progress = min(1.0, (fraction - warmed_up_at) / (1 - warmed_up_at)) if warmed_up_at < 1 else 1.0
        return lowest + 0.5 * (1 + math.cos(math.pi * progress)) * (highest - lowest)


class _DivergenceMonitor:
    """Looks at every training loss: is it finite, and does it run away?"""

    def __init__(self, choices: int) -> None:
        self._guessing = math.log(choices)
        self._initial: float | None = None
        self._mean = 0.0
        self._count = 0

    def state(self) -> tuple[float | None, float, int]:
        return self._initial, self._mean, self._count

    def take_up(self, state: tuple[float | None, float, int]) -> None:
        self._initial, self._mean, self._count = state

    def feed(self, step: int, loss: float, *, warm: bool) -> tuple[Stopped, str] | None:
        if not math.isfinite(loss):
            return "non_finite", f"the training loss is not finite at step {step}"
        if self._initial is None:
            self._initial = loss
        self._count += 1
        self._mean += (loss - self._mean) / min(self._count, RUNNING_MEAN_STEPS)
        limit = DIVERGED_FACTOR * max(self._initial, self._guessing)
        if warm and self._count >= RUNNING_MEAN_STEPS and self._mean > limit:
            return "diverged", (
                f"diverged at step {step}: the running mean of the training loss is {self._mean:.3g} nats, "
                f"above {limit:.3g}, twice what the untrained model or guessing scores"
            )
        return None


class _BestWeights:
    """The weights of the lowest validation loss, and how many evaluations ago that was."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._weights: dict[str, torch.Tensor] | None = None
        self._waited = 0
        self.step = 0
        self.loss: float | None = None

    def state(self) -> BestState:
        return {"step": self.step, "loss": self.loss, "waited": self._waited, "weights": self._weights}

    def take_up(self, state: BestState) -> None:
        self.step, self.loss, self._waited, self._weights = (
            state["step"],
            state["loss"],
            state["waited"],
            state["weights"],
        )

    def take(self, step: int, loss: float, module: nn.Module, *, last: bool) -> None:
        if self.loss is not None and loss >= self.loss:
            self._waited += 1
            return
        self.step, self.loss, self._waited = step, loss, 0
        # The module itself holds the last weights: a copy would only cost.
        self._weights = None if last else {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}

    @property
    def patience_is_over(self) -> bool:
        return 0 < self._patience <= self._waited

    def restore(self, module: nn.Module) -> None:
        if self._weights is not None:
            module.load_state_dict(self._weights)


def derived_seed(seed: int, use: str) -> int:
    """A seed for one use of randomness, so that initial weights, batches and dropout do not share a sequence."""
    return int.from_bytes(hashlib.sha256(f"{seed} {use}".encode()).digest()[:8]) >> 1
