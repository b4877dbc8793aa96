"""A model that begins with the weights of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from layers.checkpoints.initialization import initial_weights
from layers.checkpoints.tensor_files import TensorFile
from workers.engine.protocol import RequestError


def begin_with(module: nn.Module, weights: Path) -> tuple[int, dict[str, str]]:
    """Give a module, in place, the tensors of a checkpoint that have its names and shapes.

    How many it took, and why it did not take the others. Raises RequestError if it took none.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = initial_weights(TensorFile(weights), shapes)
    if not found.taken:
        name, reason = next(iter(found.not_taken.items()), ("", ""))
        message = f"no tensor of the model has the name and the shape of one in the checkpoint ({name}: {reason})"
        raise RequestError("invalid", message)
    module.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in found.taken.items()}, strict=False)
    return len(found.taken), found.not_taken
