"""Positions that are added to embedded tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Sinusoids(nn.Module):
    """A fixed table [positions, D]: sines of the position at wavelengths from 2 pi to 10,000 x 2 pi, then its cosines.

    Channel 2i of Vaswani et al. 2017 (arXiv 1706.03762) is sin(position / 10,000^(2i / D)), channel 2i + 1 its cosine;
    the sines stand together here, as in their code (tensor2tensor) and Marian. An odd width has one more sine.
    """

    table: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), 10_000.0**-exponents)
        table = torch.cat((angles.sin(), angles[:, : width // 2].cos()), dim=-1)
        self.register_buffer("table", table.float(), persistent=False)

    def forward(self, x_BTD: Tensor, position_1: Tensor | None = None) -> Tensor:
        """Of each token of x [T, D], in its number format. `position_1`: of a single token; None: the first ones."""
        rows = self.table[: x_BTD.shape[1]] if position_1 is None else functional.embedding(position_1, self.table)
        return rows.to(x_BTD.dtype)
