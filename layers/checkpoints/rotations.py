"""Rows of queries and keys in the order that an architecture rotates them by."""

from __future__ import annotations

import numpy as np

from layers.checkpoints.tensors import Order
from layers.declarations.attention import AttentionConfig


def halved_rows(attention: AttentionConfig, within: int | None = None) -> Order | None:
    """Which row of ours each row of theirs is, if theirs pairs channels half a head apart; None: the same ones.

    Rotating neighbours (rope_gptj) is rotating halves of the same channels in another order: even ones, then odd ones.
    Of the rows of queries, keys and values; or of a scale over so many channels of heads (`within`).
    """
    rotation = attention.rotation
    if rotation is None or not rotation.interleaved:
        return None
    size, turned = attention.attention_head_size, rotation.rotated_channels
    head = np.concatenate((np.arange(0, turned, 2), np.arange(1, turned, 2), np.arange(turned, size)))
    if within is not None:
        return _repeated(head, within // size)
    heads = attention.num_attention_heads + attention.num_kv_heads
    values = np.arange(heads * size, (heads + attention.num_kv_heads) * size)
    return np.concatenate((_repeated(head, heads), values))


def _repeated(head: Order, count: int) -> Order:
    return (head + len(head) * np.arange(count)[:, None]).ravel()
