"""One step of a training: forward, loss, backward, clipping and the optimizer's update of one batch.

On a GPU a step is hundreds of small kernels, and launching them one by one takes several times as long as they run. So
it is captured once as a CUDA graph and launched whole from then on. Both forms compute the same, bit for bit.

Legend: R targets of a step.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from layers.declarations.training import TrainingConfig
from workers.data.batches import Batch

STEPS_BEFORE_CAPTURE = 3
"""Taken one kernel at a time: the libraries choose their kernels, and the optimizer makes its state."""

PINNED_BATCHES = 4
"""Batches that wait in page-locked memory: so many steps the host may be ahead of the GPU."""

_log = logging.getLogger(__name__)


class StepState(TypedDict):
    """What updates have learnt of the ones before: the optimizer's moments, and the scale of the loss."""

    optimizer: dict[int, dict[str, torch.Tensor]]
    scaler: dict[str, Any]


class Step:
    """A step, kernel by kernel.

    Products are computed in bfloat16 on a GPU (float16 with loss scaling if it has no bfloat16); weights and their
    update stay float32. What the module has frozen stays as it is.
    """

    def __init__(
        self, module: nn.Module, training: TrainingConfig, *, names: Sequence[str], device: torch.device
    ) -> None:
        self._module = module
        self._gradient_clip = training.gradient_clip
        self._names = names
        self._device = device
        self._optimizer = _optimizer(module, training, device)
        self._parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._half = half_precision(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half == torch.float16)

    def state(self) -> StepState:
        """What the next update depends on beside weights, batch and rate."""
        return {"optimizer": self._optimizer.state_dict()["state"], "scaler": self._scaler.state_dict()}

    def take_up(self, state: StepState) -> None:
        """Go on from the state of another step of the same module and training; before the first update."""
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])

    def take(self, batch: Batch, learning_rate: float) -> torch.Tensor:
        """Update the weights by the batch; return its loss, on the device and not waited for."""
        self._set_learning_rate(learning_rate)
        return self._update(_Tensors.of(batch, self._names).to(self._device))

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def _update(self, given: _Tensors) -> torch.Tensor:
        targets_R, weights_R = given.targets.flatten().long(), given.weights.flatten()
        autocast = torch.autocast(self._device.type, self._half) if self._half else contextlib.nullcontext()
        with autocast:
            logits = self._module(*given.inputs)
        losses_R = functional.cross_entropy(logits.float().flatten(0, -2), targets_R, reduction="none")
        loss = (losses_R * weights_R).sum() / weights_R.sum()
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        if self._gradient_clip > 0:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()


class CapturedStep(Step):
    """A step that is launched as one CUDA graph.

    The first steps are taken kernel by kernel. A model that cannot be captured goes on like that; the log says why.
    """

    def __init__(
        self, module: nn.Module, training: TrainingConfig, *, names: Sequence[str], device: torch.device
    ) -> None:
        super().__init__(module, training, names=names, device=device)
        self._stream = torch.cuda.Stream(device)
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._may_capture = not self._scaler.is_enabled()
        self._given: _Tensors | None = None
        self._pinned: list[_Pinned] = []
        self._loss: torch.Tensor | None = None

    @property
    def is_captured(self) -> bool:
        return self._graph is not None

    def take(self, batch: Batch, learning_rate: float) -> torch.Tensor:
        self._set_learning_rate(learning_rate)
        given = self._on_device(_Tensors.of(batch, self._names))
        if self._graph is None and self._may_capture and self._taken == STEPS_BEFORE_CAPTURE:
            self._capture(given)
        self._taken += 1
        if self._graph is not None and self._loss is not None:
            self._graph.replay()
            # The next launch writes the loss over.
            return self._loss.clone()
        # The optimizer's state and the gradients' memory belong to the stream on which the graph is captured.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            loss = self._update(given)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return loss

    def _capture(self, given: _Tensors) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize(self._device)
        random_state = torch.cuda.get_rng_state(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._loss = self._update(given)
        except RuntimeError as error:
            _log.warning("this training is launched kernel by kernel: its step cannot be captured: %s", error)
            self._may_capture = False
            self._optimizer.zero_grad(set_to_none=True)
            self._restore_generator(random_state)
            return
        self._graph = graph

    def _restore_generator(self, state: torch.Tensor) -> None:
        """Dropout's generator believes in a capture that failed until another one succeeds."""
        torch.cuda.synchronize(self._device)
        with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream):
            torch.zeros(1, device=self._device)
        torch.cuda.set_rng_state(state, self._device)

    def _on_device(self, batch: _Tensors) -> _Tensors:
        """The batch in the place on the device that the graph reads, copied there without waiting for the GPU."""
        if self._given is None:
            self._given = _Tensors.like(batch, device=self._device)
            self._pinned = [_Pinned(batch) for _ in range(PINNED_BATCHES)]
        self._pinned[self._taken % PINNED_BATCHES].copy(batch, self._given)
        return self._given


@dataclass(frozen=True, slots=True)
class _Tensors:
    """A batch as tensors."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    weights: torch.Tensor

    @staticmethod
    def of(batch: Batch, names: Sequence[str]) -> _Tensors:
        inputs = tuple(_tensor(batch.inputs[name]) for name in names)
        return _Tensors(inputs, _tensor(batch.targets), _tensor(batch.weights))

    @staticmethod
    def like(batch: _Tensors, *, device: torch.device | None = None, pinned: bool = False) -> _Tensors:
        *inputs, targets, weights = (
            torch.empty_like(each, device=device, pin_memory=pinned) for each in batch.all_tensors
        )
        return _Tensors(tuple(inputs), targets, weights)

    @property
    def all_tensors(self) -> tuple[torch.Tensor, ...]:
        return (*self.inputs, self.targets, self.weights)

    def to(self, device: torch.device) -> _Tensors:
        *inputs, targets, weights = (each.to(device) for each in self.all_tensors)
        return _Tensors(tuple(inputs), targets, weights)


class _Pinned:
    """Page-locked memory for a batch, from which the GPU copies while the host goes on."""

    def __init__(self, batch: _Tensors) -> None:
        self._memory = _Tensors.like(batch, pinned=True)
        self._copied = torch.cuda.Event()

    def copy(self, batch: _Tensors, to: _Tensors) -> None:
        # Of the copy before from this memory; of an event that was never recorded nothing is waited for.
        self._copied.synchronize()
        for source, memory, place in zip(batch.all_tensors, self._memory.all_tensors, to.all_tensors, strict=True):
            memory.copy_(source)
            place.copy_(memory, non_blocking=True)
        self._copied.record()


def step_for(
    module: nn.Module, training: TrainingConfig, *, names: Sequence[str], device: torch.device
) -> Step | CapturedStep:
    """The step of a training on this device."""
    kind = CapturedStep if device.type == "cuda" else Step
    return kind(module, training, names=names, device=device)


def half_precision(device: torch.device) -> torch.dtype | None:
    """The type in which products are computed; None if everything stays float32."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _optimizer(module: nn.Module, training: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves vectors (biases, norms) alone."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    cuda = device.type == "cuda"
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        # A graph holds the place of a rate, not its value.
        lr=torch.tensor(training.learning_rate, device=device) if cuda else training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=device.type in ("cpu", "cuda"),
        capturable=cuda,
    )


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
