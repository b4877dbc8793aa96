"""A rank's part of a module with its collectives cut open, so that an exporter sees a plain function.

What a rank gives to a collective becomes an output, what the collective gives back an input: `part_0` and `whole_0` of
the first, and so on. No output depends on the input of its own collective, so that the graph can be cut there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from layers.modules.tensor_parallel import Group

CollectiveKind = Literal["sum", "gather"]
"""`sum`: [..] of each rank -> their sum [..]; `gather`: [..] of each rank -> [ranks, ..]."""


@dataclass(frozen=True, slots=True)
class Collective:
    """One word between the ranks: its kind, and what is given back to each."""

    kind: CollectiveKind
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class _Trace:
    """Of one run: the collectives in their order, what was given to them, and what they are to give back."""

    given_back: Sequence[Tensor] | None = None
    """None: zeros, as long as nobody knows how many collectives there are."""
    collectives: list[Collective] = field(default_factory=list[Collective])
    parts: list[Tensor] = field(default_factory=list[Tensor])

    def meet(self, kind: CollectiveKind, part: Tensor, shape: tuple[int, ...]) -> Tensor:
        index = len(self.parts)
        self.parts.append(part)
        self.collectives.append(Collective(kind, shape, part.dtype))
        if self.given_back is None:
            return torch.zeros(shape, dtype=part.dtype, device=part.device)
        return self.given_back[index]


@dataclass(frozen=True, slots=True)
class TracedGroup(Group):
    """A group of ranks of which only this one is there; its collectives are recorded."""

    trace: _Trace = field(default_factory=_Trace)

    def summed(self, part: Tensor) -> Tensor:
        return self.trace.meet("sum", part, tuple(part.shape))

    def joined(self, part: Tensor) -> Tensor:
        whole = self.trace.meet("gather", part, (self.size, *part.shape))
        return torch.cat(whole.unbind(0), dim=-1)


class OpenedModule(nn.Module):
    """(inputs, what the collectives give back) -> (what is given to them, the output)."""

    def __init__(self, module: nn.Module, group: TracedGroup, inputs: Sequence[Tensor]) -> None:
        """`module`: a rank's part, split by `group`. Its shapes are run through once to see which collectives there
        are: nothing is computed."""
        super().__init__()
        self.module = module
        self._trace = group.trace
        self._count = len(inputs)
        with torch.no_grad():
            _without_values(module, group)(*(each.to("meta") for each in inputs))
        self.collectives = tuple(self._trace.collectives)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self._trace.given_back = tensors[self._count :]
        self._trace.parts, self._trace.collectives = [], []
        output = self.module(*tensors[: self._count])
        return (*self._trace.parts, output)


def _without_values(module: nn.Module, group: TracedGroup) -> nn.Module:
    """A copy that has the shapes of weights alone; its collectives are those of the same group."""
    known: dict[int, object] = {id(group): group}
    for parameter in module.parameters():
        known[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in module.buffers():
        known[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, known)
