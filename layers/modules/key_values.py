"""What one attention layer keeps of the tokens that it has seen, while a text is generated.

Shapes: k_BKSH and v_BKSH, B batch, K key and value heads, S keys, H head size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class KeyValues:
    """Given to a layer with the past, and taken from it with what is new. Keys are normalized and rotated."""

    past: tuple[Tensor, Tensor] | None = None
    """Keys and values of earlier tokens; None: there are none, and many tokens are read at once. Of attention to an
    encoder: those of its whole output; None: they are calculated of it."""
    position: Tensor | None = None
    """int [1]: of the one token that is read; None: the first tokens are."""
    new: tuple[Tensor, Tensor] | None = None
    """Keys and values of the tokens that were read: set by the layer."""
    source: KeyValues | None = None
    """Of the same block's attention to an encoder, if it has one."""
