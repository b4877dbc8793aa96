"""Rotations of queries and keys by their positions.

Shapes: x_BNTH, B batch, N heads, T tokens, H head size; R rotated channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.rotation import RotationConfig


class Rotary(nn.Module):
    """Rotations of pairs of channels by position × base^(-2i / R) (Su et al. 2021, arXiv 2104.09864).

    rope_gpt_neox pairs channel i with i + R/2, rope_gptj with its neighbour. Channels beyond R pass unchanged.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: RotationConfig) -> None:
        super().__init__()
        self.rotated_channels = config.rotated_channels
        self.interleaved = config.interleaved
        positions = torch.arange(config.positions, dtype=torch.float64)
        angles = torch.outer(positions, frequencies(config))
        angles = angles.repeat_interleave(2, dim=-1) if self.interleaved else torch.cat((angles, angles), dim=-1)
        magnitude = _magnitude(config)
        self.register_buffer("cosines", (angles.cos() * magnitude).float(), persistent=False)
        self.register_buffer("sines", (angles.sin() * magnitude).float(), persistent=False)

    def forward(self, x_BNTH: Tensor, position_1: Tensor | None = None) -> Tensor:
        """`position_1`: of a single token; None: they are the first tokens."""
        length = x_BNTH.shape[-2]
        cosines, sines = (
            (table[:length] if position_1 is None else functional.embedding(position_1, table)).to(x_BNTH.dtype)
            for table in (self.cosines, self.sines)
        )
        if self.rotated_channels == x_BNTH.shape[-1]:
            return x_BNTH * cosines + self._turned(x_BNTH) * sines
        x_BNTR, rest = x_BNTH[..., : self.rotated_channels], x_BNTH[..., self.rotated_channels :]
        return torch.cat((x_BNTR * cosines + self._turned(x_BNTR) * sines, rest), dim=-1)

    def _turned(self, x_BNTR: Tensor) -> Tensor:
        """Each pair (a, b) as (-b, a)."""
        if self.interleaved:
            pairs = x_BNTR.unflatten(-1, (self.rotated_channels // 2, 2))
            return torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
        first, second = x_BNTR.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)


def frequencies(config: RotationConfig) -> Tensor:
    """Radians a position of each pair of channels, float64 [R / 2], stretched as `scale_type` says."""
    exponents = torch.arange(0, config.rotated_channels, 2, dtype=torch.float64) / config.rotated_channels
    unscaled = config.base**-exponents
    match config.scale_type:
        case "linear":
            return unscaled / config.scale
        case "llama3":
            kept = _kept_by_llama3(config, unscaled)
        case "yarn":
            kept = _kept_by_yarn(config)
        case _:
            return unscaled
    return unscaled * kept + unscaled / config.scale * (1 - kept)


def _kept_by_llama3(config: RotationConfig, unscaled: Tensor) -> Tensor:
    """The share of each frequency that is not divided (Grattafiori et al. 2024, arXiv 2407.21783; their code)."""
    turns = config.original_positions * unscaled / (2 * math.pi)
    low, high = config.low_freq_factor, config.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0, 1)


def _kept_by_yarn(config: RotationConfig) -> Tensor:
    """The same of YaRN (Peng et al. 2023, arXiv 2309.00071): linear between two channels, both whole numbers."""
    channels = config.rotated_channels

    def channel_that_turns(turns: float) -> float:
        wavelength = config.original_positions / (2 * math.pi * turns)
        return channels * math.log(wavelength) / (2 * math.log(config.base))

    first = max(math.floor(channel_that_turns(config.beta_fast)), 0)
    last: float = min(math.ceil(channel_that_turns(config.beta_slow)), channels - 1)
    if first == last:
        last += 0.001
    ramp = (torch.arange(channels // 2, dtype=torch.float64) - first) / (last - first)
    return 1 - ramp.clamp(0, 1)


def _magnitude(config: RotationConfig) -> float:
    """What queries and keys are multiplied by: YaRN's 0.1 ln(scale) + 1, else 1."""
    return 0.1 * math.log(config.scale) + 1.0 if config.scale_type == "yarn" else 1.0
