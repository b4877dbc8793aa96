"""What PyTorch says in float32, or a quantized graph: outputs and losses that an engine's are held against.

Legend: R targets of several examples, V logits of a target.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from workers.data.batches import Batches

LOGITS_AT_ONCE = 1 << 24
"""Elements of logits computed at once when losses are summed (64 MiB in float32)."""

INPUTS_AT_ONCE = 1 << 18
"""The same of inputs (tokens, mostly): what lies between them and the logits grows with these."""

INPUTS_AT_ONCE_ON_CPU = 1 << 13
"""The same on a CPU, whose caches hold less."""


@dataclass(frozen=True, slots=True)
class Score:
    """Mean cross-entropy in nats and share of right answers over the positions that count."""

    loss: float
    accuracy: float
    targets: float


@torch.inference_mode()
def outputs(
    module: nn.Module, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], device: torch.device
) -> NDArray[np.float32]:
    """The module's output in float32, dropout off. `names` are its inputs in the order of its `forward`."""
    with _evaluating(module):
        return module(*(torch.from_numpy(inputs[name]).to(device) for name in names)).float().cpu().numpy()


def graph_outputs(graph: Path, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[np.float32]:
    """What a graph computes operator by operator, in float32: ONNX Runtime on the CPU, with nothing fused."""
    from workers.engine.onnxruntime.session import open_session, session_options

    session = open_session(graph, session_options(torch.get_num_threads(), optimize=False))
    (found,) = session.run(None, {name: inputs[name] for name in names})
    return np.asarray(found, np.float32)


@torch.inference_mode()
def score(
    module: nn.Module,
    batches: Batches,
    names: Sequence[str],
    device: torch.device,
    *,
    choices: int,
    give_way: Callable[[], object] = lambda: None,
) -> Score:
    """The mean loss of a module over batches, weighted; sums are in float64.

    `names` are its inputs in the order of its `forward`, `choices` the logits of one target. The loss does not depend
    on how the examples are grouped into batches. `give_way` is called before each group of them.
    """
    examples = batches.in_one()
    given = [torch.from_numpy(examples.inputs[name]) for name in names]
    targets, weights = torch.from_numpy(examples.targets), torch.from_numpy(examples.weights)
    inputs_at_once = INPUTS_AT_ONCE_ON_CPU if device.type == "cpu" else INPUTS_AT_ONCE
    rows = max(
        1,
        min(
            LOGITS_AT_ONCE // (targets[0].numel() * choices),
            inputs_at_once // sum(tensor[0].numel() for tensor in given),
        ),
    )
    loss = right = total = 0.0
    with _evaluating(module):
        for group in zip(*(tensor.split(rows) for tensor in (*given, targets, weights)), strict=True):
            give_way()
            *of_model, wanted, counted = (tensor.to(device) for tensor in group)
            logits_RV = module(*of_model).float().flatten(0, -2)
            wanted_R, counted_R = wanted.flatten().long(), counted.flatten().double()
            losses_R = functional.cross_entropy(logits_RV, wanted_R, reduction="none").double()
            loss += (losses_R * counted_R).sum().item()
            right += ((logits_RV.argmax(-1) == wanted_R).double() * counted_R).sum().item()
            total += counted_R.sum().item()
    return Score(loss / total, right / total, total)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Generator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
