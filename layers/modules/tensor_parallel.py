"""Layers that a group of processes shares: each holds its part of the weights and computes its part of the result.

As in TensorRT-LLM and Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053): a column-parallel product splits what comes
out, a row-parallel one what goes in and sums over the group; attention is split by heads, feed-forward by its inner
width, an embedding by rows (`sharding_dim` 0) or columns (1). What enters and leaves a layer is whole on every process,
so that norms and residuals need no word between them. For inference: the collectives have no backward pass.

Shapes: x_BTD, B batch, T tokens, D width; I features in, O features out, E the table's width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.embedding import SHARDING_DIM
from layers.declarations.per_layer import views
from layers.modules.attention import Attention, CrossAttention
from layers.modules.embedding import Embedding
from layers.modules.key_values import KeyValues
from layers.modules.mlp import FusedGatedMlp, GatedMlp, Mlp
from layers.modules.model import Head
from layers.parameter import Scalar


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that share a model, and which of them this one is. `handle` None: the default process group."""

    rank: int
    size: int
    handle: Any = None

    def summed(self, part: Tensor) -> Tensor:
        """The sum of every process's part."""
        total = part.contiguous().clone()
        dist.all_reduce(total, group=self.handle)
        return total

    def joined(self, part: Tensor) -> Tensor:
        """Every process's part, one after another along the last dimension."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous(), group=self.handle)
        return torch.cat(parts, dim=-1)

    def share(self, count: int) -> slice:
        """This process's part of `count` things that it can share evenly."""
        if count % self.size:
            raise ValueError(f"{count} cannot be shared evenly by {self.size} processes")
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


class ColumnLinear(nn.Module):
    """x Wᵀ + b with the rows of W, so what comes out, split over the group."""

    def __init__(self, whole: nn.Linear, rows: Tensor, group: Group, *, gather_output: bool) -> None:
        """`rows`: those of W that this process has. Gathering puts the processes' rows one after another."""
        super().__init__()
        self.group = group
        self.gather_output = gather_output
        self.weight = nn.Parameter(whole.weight.detach()[rows].clone())
        has_bias = whole.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
        self.bias = nn.Parameter(whole.bias.detach()[rows].clone()) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[.., I], the same on every process -> [.., O / size], or gathered [.., O]."""
        part = functional.linear(x, self.weight, self.bias)
        return self.group.joined(part) if self.gather_output else part


class RowLinear(nn.Module):
    """x Wᵀ + b with the columns of W, so what goes in, split over the group; the products are summed over it."""

    def __init__(self, whole: nn.Linear, group: Group) -> None:
        super().__init__()
        self.group = group
        self.weight = nn.Parameter(whole.weight.detach()[:, group.share(whole.in_features)].clone())
        has_bias = whole.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
        self.bias = nn.Parameter(whole.bias.detach().clone()) if has_bias else None

    def forward(self, part: Tensor) -> Tensor:
        """This process's [.., I / size] -> [.., O], the same on every process."""
        total = self.group.summed(functional.linear(part, self.weight))
        return total if self.bias is None else total + self.bias


class SplitTable(nn.Module):
    """An embedding's table, split by rows (`sharding_dim` 0: the vocabulary) or by columns (1: the width).

    Rows need not be shared evenly: the last processes have fewer, filled up with zeros.
    """

    def __init__(self, whole: nn.Embedding, group: Group, *, sharding_dim: int) -> None:
        super().__init__()
        self.group = group
        self.sharding_dim = sharding_dim
        self.num_embeddings = whole.num_embeddings
        table = whole.weight.detach()
        if sharding_dim == 0:
            self.rows = -(-whole.num_embeddings // group.size)
            self.first = group.rank * self.rows
            mine = table[self.first : self.first + self.rows]
            self.weight = nn.Parameter(functional.pad(mine, (0, 0, 0, self.rows - len(mine))))
        else:
            self.columns = group.share(whole.embedding_dim)
            self.weight = nn.Parameter(table[:, self.columns].clone())

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """tokens [B, T] -> [B, T, E], the same on every process."""
        if self.sharding_dim == 1:
            return self.group.joined(functional.embedding(tokens_BT, self.weight))
        rows_BT = tokens_BT - self.first
        mine_BT = (rows_BT >= 0) & (rows_BT < self.rows)
        rows_BTE = functional.embedding(torch.where(mine_BT, rows_BT, 0), self.weight)
        return self.group.summed(rows_BTE * mine_BT.unsqueeze(-1))

    def logits(self, x_BTE: Tensor) -> Tensor:
        """The product with the whole table [B, T, V], the same on every process: of a head that is tied to it."""
        if self.sharding_dim == 1:
            return self.group.summed(functional.linear(x_BTE[..., self.columns], self.weight))
        return self.group.joined(functional.linear(x_BTE, self.weight))[..., : self.num_embeddings]


class SplitHead(nn.Module):
    """A head that is tied to a table which the group shares."""

    def __init__(self, head: Head, table: SplitTable) -> None:
        super().__init__()
        self.head = head
        self.table = table

    def forward(self, x_BTD: Tensor, part: Tensor) -> Tensor:
        """As the whole head; `part`, of the table, is known already."""
        return self.head.leaving(self.table.logits(self.head.entering(x_BTD)))


class SplitAttention(nn.Module):
    """Attention by this process's heads. If key and value heads are fewer than processes, several share one."""

    def __init__(self, whole: Attention, group: Group) -> None:
        super().__init__()
        config = whole.config
        if whole.q_layernorm is not None and config.qk_norm_scope == "width":
            raise ValueError("processes that hold some of the heads cannot normalize the width of all of them")
        self.heads = group.share(config.num_attention_heads)
        kv_heads = _kv_heads(config.num_kv_heads, group)
        size, mine = config.attention_head_size, len(range(*self.heads.indices(config.num_attention_heads)))
        queries = _channels(self.heads, size)
        keys, values_offset = _channels(kv_heads, size), config.num_kv_heads * size
        if isinstance(whole, CrossAttention):
            rows = torch.cat((keys, keys + values_offset))
            whole.set_submodule("query", ColumnLinear(whole.query, queries, group, gather_output=False))
            whole.set_submodule("key_value", ColumnLinear(whole.key_value, rows, group, gather_output=False))
        else:
            offset = config.num_attention_heads * size
            rows = torch.cat((queries, keys + offset, keys + offset + values_offset))
            whole.set_submodule("qkv", ColumnLinear(whole.qkv, rows, group, gather_output=False))
        whole.set_submodule("dense", RowLinear(whole.dense, group))
        whole.config = replace(config, num_attention_heads=mine, num_kv_heads=kv_heads.stop - kv_heads.start)
        self.attention = whole

    def forward(
        self,
        x_BTD: Tensor,
        bias_BNTS: Tensor | None = None,
        encoded_BSD: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> Tensor:
        """As the whole layer: the bias is that of all heads, or one for all of them. Keys and values are those of this
        process's heads."""
        if bias_BNTS is not None and bias_BNTS.shape[1] > 1:
            bias_BNTS = bias_BNTS[:, self.heads]
        return self.attention(x_BTD, bias_BNTS, encoded_BSD, key_values)


def _kv_heads(count: int, group: Group) -> slice:
    """The key and value heads that this process's queries read."""
    if count >= group.size:
        return group.share(count)
    if group.size % count:
        raise ValueError(f"{group.size} processes cannot share {count} key and value heads evenly")
    head = group.rank // (group.size // count)
    return slice(head, head + 1)


def _channels(heads: slice, size: int) -> Tensor:
    return torch.arange(heads.start * size, heads.stop * size)


def _rows(count: int, group: Group, parts: int = 1) -> Tensor:
    """This process's share of each of `parts` equal parts of `count` rows."""
    each = count // parts
    share = group.share(each)
    return torch.cat([torch.arange(share.start, share.stop) + part * each for part in range(parts)])


def split(module: nn.Module, model: Mapping[str, Scalar], group: Group) -> nn.Module:
    """Leave of a completed model's module what this process holds of it, in place, layer by layer as `tp_size` says.

    Every process begins with the same whole module. Raises ValueError if a layer's `tp_size` is another group's.
    """
    heads: list[tuple[str, Head]] = []
    for name, part in list(module.named_modules()):
        match part:
            case Mlp() | GatedMlp() | FusedGatedMlp() if _is_split(_layer_of(model, name), "mlp", group):
                split_mlp(part, group)
            case Attention() if _is_split(_layer_of(model, name), "attention", group):
                module.set_submodule(name, SplitAttention(part, group))
            case Embedding() if _is_split(model, "embedding", group):
                part.set_submodule("table", SplitTable(part.table, group, sharding_dim=int(model[SHARDING_DIM])))
            case Head() if part.linear is None and _is_split(model, "embedding", group):
                heads.append((name, part))
            case nn.Linear() if model["kind"] == "linear" and _is_split(model, "linear", group):
                module.set_submodule(name, split_linear(part, model, group))
            case _:
                pass
    for name, head in heads:
        table = module.get_submodule("embedding.table")
        assert isinstance(table, SplitTable)
        module.set_submodule(name, SplitHead(head, table))
    return module


def split_linear(whole: nn.Linear, model: Mapping[str, Scalar], group: Group) -> ColumnLinear | RowLinear:
    """This process's part of the layer of the section `linear`."""
    if model["linear.kind"] == "RowLinear":
        return RowLinear(whole, group)
    rows = _rows(whole.out_features, group)
    return ColumnLinear(whole, rows, group, gather_output=bool(model["linear.gather_output"]))


def _layer_of(model: Mapping[str, Scalar], name: str) -> Mapping[str, Scalar]:
    """The model as the layer sees it in which the module `name` lies."""
    found = re.search(r"(\w+)\.layers\.(\d+)\.", name)
    if found is None:
        return model
    number = int(found[2]) * int(model.get("layers_sharing_weights", 1))
    return views(model, "encoder_layers" if found[1] == "encoder" else "layers")[number]


def _is_split(model: Mapping[str, Scalar], section: str, group: Group) -> bool:
    size = model.get(f"{section}.tp_size", 1)
    if size not in (1, group.size):
        raise ValueError(f"{section}.tp_size is {size}: the group has {group.size} processes")
    return size != 1


def split_mlp(mlp: Mlp | GatedMlp | FusedGatedMlp, group: Group) -> None:
    """Leave of a feed-forward layer this process's share of its inner width, in place."""
    match mlp:
        case Mlp():
            columns = {"fc": _column(mlp.fc, group, parts=2 if mlp.config.doubled else 1)}
        case GatedMlp():
            columns = {"gate": _column(mlp.gate, group), "up": _column(mlp.up, group)}
        case FusedGatedMlp():
            columns = {"fused_fc": _column(mlp.fused_fc, group, parts=2)}
    for name, column in columns.items():
        mlp.set_submodule(name, column)
    mlp.set_submodule("proj", RowLinear(mlp.proj, group))


def _column(whole: nn.Linear, group: Group, parts: int = 1) -> ColumnLinear:
    return ColumnLinear(whole, _rows(whole.out_features, group, parts), group, gather_output=False)
