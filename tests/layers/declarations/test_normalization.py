"""Norms against torch.nn, and in float16."""

from __future__ import annotations

import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from layers.declarations.normalization import NormConfig
from layers.export.onnx_export import export
from layers.modules.normalization import build_norm


def filled(config: NormConfig) -> nn.Module:
    """With random scale and shift, so that each of them is seen."""
    module = build_norm(config)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_is_torchs(affine, bias, eps):
    module = filled(NormConfig("LayerNorm", 24, eps, affine, bias))
    reference = nn.LayerNorm(24, eps=eps, elementwise_affine=affine, bias=bias)
    reference.load_state_dict(module.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(module(x), reference(x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_rms_norm_is_torchs(affine, eps):
    module = filled(NormConfig("RmsNorm", 24, eps, affine))
    reference = nn.RMSNorm(24, eps=eps, elementwise_affine=affine)
    reference.load_state_dict(module.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(module(x), reference(x))


def test_grouped_rms_norm_normalizes_each_group_by_itself():
    module = filled(NormConfig("RmsNorm", 24, 1e-6, True, num_groups=3))
    x = torch.randn(2, 5, 24)
    parts = [part / part.square().mean(-1, keepdim=True).add(1e-6).sqrt() for part in x.split(8, dim=-1)]
    torch.testing.assert_close(module(x), torch.cat(parts, dim=-1) * module.get_parameter("weight"))


@pytest.mark.parametrize("bias", [True, False])
def test_group_norm_is_torchs_for_each_token(bias):
    module = filled(NormConfig("GroupNorm", 24, 1e-5, True, bias, num_groups=4))
    reference = nn.GroupNorm(4, 24, eps=1e-5)
    nn.init.zeros_(reference.bias)
    reference.load_state_dict(module.state_dict(), strict=False)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(module(x), reference(x.reshape(10, 24)).reshape(2, 5, 24))


@pytest.mark.parametrize("kind", ["LayerNorm", "RmsNorm", "GroupNorm"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalized_in_float32(kind, dtype):
    """Squares of 3,000 overflow float16, and an eps of 1e-12 is zero in it."""
    module = build_norm(NormConfig(kind, 32, 1e-12, num_groups=1 if kind == "LayerNorm" else 4)).to(dtype)
    x = (torch.randn(3, 32) * 3000).to(dtype)
    out = module(x)
    assert out.dtype == dtype
    reference = build_norm(NormConfig(kind, 32, 1e-12, num_groups=1 if kind == "LayerNorm" else 4))
    torch.testing.assert_close(out.float(), reference(x.float()), rtol=1e-2, atol=1e-2)
    assert torch.isfinite(module(torch.zeros(3, 32, dtype=dtype))).all()


@pytest.mark.parametrize("eps", [1e-12])
@pytest.mark.parametrize("kind", ["LayerNorm", "RmsNorm", "GroupNorm"])
@pytest.mark.parametrize("form", [torch.float32, torch.float16])
def test_a_row_of_zeros_stays_one_in_the_module_and_in_its_graph(form, kind, eps, tmp_path):
    """Below 3e-8 eps is zero in float16, and what it scales a row of zeros by is infinite there."""
    module = build_norm(NormConfig(kind, 32, eps, num_groups=1 if kind == "LayerNorm" else 4)).to(form)
    module.compute_dtype = form
    x = torch.cat([torch.zeros(1, 32), torch.randn(2, 32)]).to(form)
    out = module(x)
    assert out[0].eq(0).all()
    reference = build_norm(NormConfig(kind, 32, eps, num_groups=1 if kind == "LayerNorm" else 4))
    torch.testing.assert_close(out.float(), reference(x.float()), rtol=1e-2, atol=1e-2)
    path = tmp_path / "norm.onnx"
    export(module, (x,), path, opset=17, input_names=("x",))
    # As written: ONNX Runtime's CPU would compute in float32.
    (engine,) = ReferenceEvaluator(str(path)).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(engine), out, rtol=1e-2, atol=1e-2)
