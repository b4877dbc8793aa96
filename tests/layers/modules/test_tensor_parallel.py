"""Layers that processes share give the result of the whole layer; what cannot be shared is refused with the reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing

from layers.capabilities import unsupported
from layers.completion import complete
from layers.declarations.kinds import KINDS
from layers.declarations.model import broken_rules
from layers.modules.tensor_parallel import Group, split
from layers.parameter import Scalar
from layers.signature import signature
from tests.layers.combinations import BASES, BATCH_SIZE, FACTS, LENGTH, SOURCE_LENGTH, drawn, lively

PROCESSES = 4
LARGEST_ERROR = 1e-5

CASES: list[tuple[str, dict[str, Scalar]]] = [
    ("linear", {"linear.kind": "Linear"}),
    ("linear", {"linear.kind": "ColumnLinear", "linear.bias": False}),
    ("linear", {"linear.kind": "ColumnLinear", "linear.gather_output": False}),
    ("linear", {"linear.kind": "RowLinear"}),
    ("mlp", {"mlp.kind": "MLP"}),
    ("mlp", {"mlp.kind": "MLP", "mlp.hidden_act": "swiglu"}),
    ("mlp", {"mlp.kind": "GatedMLP", "mlp.bias": False}),
    ("mlp", {"mlp.kind": "FusedGatedMLP"}),
    ("attention", {}),
    ("attention", {"attention.num_kv_heads": 2, "attention.position_embedding_type": "rope_gpt_neox"}),
    ("attention", {"attention.num_kv_heads": 1, "attention.position_embedding_type": "relative"}),
    ("attention", {"attention.position_embedding_type": "alibi", "attention.qk_layernorm": True}),
    ("attention", {"attention.cross_attention": True, "attention.attention_mask_type": "padding"}),
    ("embedding", {"embedding.sharding_dim": 0}),
    ("embedding", {"embedding.sharding_dim": 1, "embedding.embedding_dim": 16}),
    ("block", {"attention.num_kv_heads": 2, "norm.kind": "RmsNorm"}),
    ("decoder", {"num_layers": 2, "embedding.sharding_dim": 0}),
    ("decoder", {"num_layers": 2, "embedding.sharding_dim": 1, "mlp.kind": "GatedMLP"}),
    ("decoder", {"embedding.tp_size": 1, "tie_embeddings": False, "attention.position_embedding_type": "relative"}),
    ("decoder", {"attention.tp_size": 1, "mlp.tp_size": 1, "embedding.embedding_dim": 16}),
    ("encoder", {"attention.attention_mask_type": "custom_mask"}),
    ("encoder_decoder", {"attention.position_embedding_type": "alibi_with_scale"}),
]


def completed(kind: str, changes: dict[str, Any]) -> dict[str, Scalar]:
    task = KINDS[kind].task
    return complete(task, {**BASES[kind], "kind": kind, **changes}, FACTS[task])


def error_of(kind: str, changes: dict[str, Scalar], group: Group) -> float:
    """How far this process's result of the shared model is from the whole one's."""
    model = completed(kind, {"tp_size": group.size, **changes})
    assert broken_rules(model) == []
    whole = lively(model)
    inputs = tuple(drawn(s) for s in signature(KINDS[kind].task, model, BATCH_SIZE, LENGTH, SOURCE_LENGTH).inputs)
    expected = whole(*inputs)
    shared = split(copy.deepcopy(whole), model, group)
    if kind == "linear":
        inputs, expected = _parts(model, inputs, expected, group)
    held = sum(parameter.numel() for parameter in shared.parameters())
    assert held < sum(parameter.numel() for parameter in whole.parameters())
    return float((shared(*inputs) - expected).norm() / expected.norm())


def _parts(
    model: dict[str, Scalar], inputs: tuple[Tensor, ...], expected: Tensor, group: Group
) -> tuple[tuple[Tensor, ...], Tensor]:
    """What a RowLinear is given of its input, and a ColumnLinear that gathers nothing leaves of its output."""
    if model["linear.kind"] == "RowLinear":
        return (inputs[0][..., group.share(inputs[0].shape[-1])],), expected
    if not model["linear.gather_output"]:
        return inputs, expected[..., group.share(expected.shape[-1])]
    return inputs, expected


def _share(rank: int, folder: str) -> None:
    """One process: every case over all processes, and over two groups of two."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    groups = [Group(rank, PROCESSES), Group(rank % 2, 2, pairs[rank // 2])]
    with torch.no_grad():
        errors = {(group.size, index): error_of(*case, group) for group in groups for index, case in enumerate(CASES)}
    torch.save(errors, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_shared_layers_give_the_result_of_the_whole_over_two_and_four_processes(tmp_path):
    multiprocessing.start_processes(_share, (str(tmp_path),), nprocs=PROCESSES, start_method="spawn")
    for rank in range(PROCESSES):
        errors = torch.load(tmp_path / f"{rank}.pt")
        assert len(errors) == 2 * len(CASES)
        wrong = {
            str(CASES[index]): (size, error) for (size, index), error in errors.items() if not error <= LARGEST_ERROR
        }
        assert wrong == {}


@pytest.mark.parametrize(
    ("kind", "changes", "rule"),
    [
        ("attention", {"attention.num_attention_heads": 2, "tp_size": 4}, "attention.num_attention_heads % tp_size"),
        (
            "attention",
            {
                "attention.num_attention_heads": 6,
                "attention.attention_head_size": 8,
                "attention.num_kv_heads": 3,
                "tp_size": 2,
            },
            "num_kv_heads and tp_size",
        ),
        ("mlp", {"mlp.ffn_hidden_size": 30, "tp_size": 4}, "mlp.ffn_hidden_size % tp_size"),
        ("mlp", {"mlp.tp_size": 2, "tp_size": 4}, "mlp.tp_size of the group"),
        ("linear", {"linear.out_features": 30, "tp_size": 4}, "linear.out_features % tp_size"),
        (
            "linear",
            {"linear.kind": "RowLinear", "linear.in_features": 30, "tp_size": 4},
            "linear.in_features % tp_size",
        ),
        (
            "linear",
            {"linear.kind": "RowLinear", "linear.gather_output": False, "tp_size": 2},
            "linear.gather_output of RowLinear",
        ),
        (
            "embedding",
            {"embedding.sharding_dim": 1, "embedding.embedding_dim": 30, "tp_size": 4},
            "embedding.embedding_dim % tp_size",
        ),
    ],
)
def test_what_devices_cannot_share_evenly_is_a_broken_rule(kind, changes, rule):
    assert rule in [violation.rule for violation in broken_rules(completed(kind, changes))]


def test_rows_of_a_vocabulary_need_not_be_shared_evenly():
    assert broken_rules(completed("embedding", {"embedding.num_embeddings": 29, "tp_size": 2})) == []


def test_a_target_with_fewer_devices_says_so():
    target = {
        "runtime": "onnxruntime",
        "version": "1.32.0",
        "device_model": "a CPU",
        "opset": 20,
        "dtypes": ["float32"],
        "device_memory_bytes": 10**9,
    }
    model = completed("mlp", {"tp_size": 4})
    assert "over 1 device: tp_size 4 needs 4" in (unsupported(model, target) or "")
    assert "over 2 devices: tp_size 4 needs 4" in (unsupported(model, {**target, "devices": 2}) or "")
    assert unsupported(completed("mlp", {}), target) is None


def test_as_many_devices_share_an_engine_that_is_not_quantized():
    target = {
        "runtime": "tensorrt",
        "version": "10.0",
        "device_model": "eight GPUs",
        "opset": 20,
        "dtypes": ["float32"],
        "quantizations": ["int8"],
        "device_memory_bytes": 10**9,
        "devices": 8,
    }
    assert unsupported(completed("mlp", {"tp_size": 4}), target) is None
    quantized = completed("mlp", {"tp_size": 4, "quantization": "int8"})
    assert "quantizes no engine that devices share" in (unsupported(quantized, target) or "")


def test_each_device_holds_its_part_of_the_weights():
    model = completed("mlp", {"mlp.ffn_hidden_size": 4096, "tp_size": 4})
    small = {
        "runtime": "tensorrt",
        "version": "10.0",
        "device_model": "four small GPUs",
        "opset": 20,
        "dtypes": ["float32"],
        "device_memory_bytes": 500_000,
        "devices": 4,
    }
    assert unsupported(model, small) is None
    assert "the weights alone" in (unsupported(completed("mlp", {"mlp.ffn_hidden_size": 4096}), small) or "")


def test_a_group_of_another_size_is_refused():
    model = completed("mlp", {"tp_size": 2})
    with pytest.raises(ValueError, match=r"mlp\.tp_size is 2: the group has 4"):
        split(lively(model), model, Group(0, 4))
