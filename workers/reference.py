"""What PyTorch says in float32: logits and losses that an engine's are held against.

Legend: N batches, B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from workers.batches import Batches

LOGITS_AT_ONCE = 1 << 24
"""Elements of logits computed at once when losses are summed (64 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross-entropy in nats and share of right answers over the positions that count."""

    loss: float
    accuracy: float
    tokens: float


@torch.inference_mode()
def logits(module: nn.Module, inputs_BT: NDArray[np.int32], device: torch.device) -> NDArray[np.float32]:
    """The module's logits [B, T, V] in float32, dropout off."""
    with _evaluating(module):
        return module(torch.from_numpy(inputs_BT).to(device)).float().cpu().numpy()


@torch.inference_mode()
def score(module: nn.Module, batches: Batches, device: torch.device, *, vocabulary_size: int) -> Score:
    """The mean loss of a module over batches, weighted; sums are in float64.

    It does not depend on how the windows are grouped into batches.
    """
    length = batches.inputs.shape[-1]
    rows = max(1, LOGITS_AT_ONCE // (length * vocabulary_size))
    inputs = torch.from_numpy(batches.inputs.reshape(-1, length))
    targets = torch.from_numpy(batches.targets.reshape(-1, length))
    weights = torch.from_numpy(batches.weights.reshape(-1, length))
    loss = right = total = 0.0
    with _evaluating(module):
        for group in zip(inputs.split(rows), targets.split(rows), weights.split(rows), strict=True):
            inputs_BT, targets_BT, weights_BT = (tensor.to(device) for tensor in group)
            logits_BTV = module(inputs_BT).float()
            losses = functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten().long(), reduction="none")
            counted = weights_BT.flatten()
            loss += (losses.double() * counted).sum().item()
            hits = logits_BTV.argmax(-1).flatten() == targets_BT.flatten()
            right += (hits.double() * counted).sum().item()
            total += counted.double().sum().item()
    return Score(loss / total, right / total, total)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Generator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
