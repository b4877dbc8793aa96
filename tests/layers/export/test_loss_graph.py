"""The loss graph against torch's cross-entropy."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from layers.export.onnx_export import export_loss

SHAPE = (3, 5, 11)


def losses(path, logits, targets, weights):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(
        ["loss_sum", "weight_sum", "correct"], {"logits": logits, "targets": targets, "weights": weights}
    )
    assert {(output.dtype, output.shape) for output in outputs} == {(np.dtype(np.float32), ())}
    return [float(output) for output in outputs]


def made(seed=0, scale=3.0, shape=SHAPE):
    generator = np.random.default_rng(seed)
    logits = (generator.standard_normal(shape) * scale).astype(np.float32)
    targets = generator.integers(0, shape[-1], shape[:-1], dtype=np.int32)
    weights = generator.choice(np.array([0.0, 0.5, 1.0], dtype=np.float32), shape[:-1])
    return logits, targets, weights


def expected_of(logits, targets, weights):
    rows = torch.tensor(logits, dtype=torch.float64).reshape(-1, logits.shape[-1])
    answers, shares = torch.tensor(targets).long().reshape(-1), torch.tensor(weights).double().reshape(-1)
    loss_sum = (functional.cross_entropy(rows, answers, reduction="none") * shares).sum().item()
    return [loss_sum, shares.sum().item(), (shares * (rows.argmax(-1) == answers)).sum().item()]


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("shape", [SHAPE, (7, 11), (2, 2, 2, 4), (1, 1, 1)])
def test_it_is_the_weighted_cross_entropy(tmp_path, opset, shape):
    path = tmp_path / "loss.onnx"
    export_loss(path, logits_shape=shape, opset=opset)
    batch = made(shape=shape)
    assert losses(path, *batch) == pytest.approx(expected_of(*batch), rel=1e-6, abs=1e-6)


def test_float16_logits_are_summed_in_float32(tmp_path):
    path = tmp_path / "loss.onnx"
    shape = (64, 32, 29)
    export_loss(path, logits_shape=shape, opset=17, dtype="float16")
    logits, targets, weights = made(shape=shape)
    logits = logits.astype(np.float16)
    assert losses(path, logits, targets, weights) == pytest.approx(expected_of(logits, targets, weights), rel=1e-5)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_overflow_nothing(tmp_path, scale):
    path = tmp_path / "loss.onnx"
    export_loss(path, logits_shape=SHAPE, opset=17)
    batch = made(scale=scale)
    assert losses(path, *batch) == pytest.approx(expected_of(*batch), rel=1e-5)


def test_the_largest_float16_logits_are_scored(tmp_path):
    path = tmp_path / "loss.onnx"
    export_loss(path, logits_shape=(2, 3), opset=17, dtype="float16")
    logits = np.array([[65504, -65504, 0], [-65504, -65504, -65504]], dtype=np.float16)
    targets, weights = np.array([1, 2], dtype=np.int32), np.ones(2, dtype=np.float32)
    assert losses(path, logits, targets, weights) == pytest.approx([131008 + np.log(3), 2, 0], rel=1e-6)


def test_a_logit_that_is_not_finite_is_not_hidden(tmp_path):
    path = tmp_path / "loss.onnx"
    export_loss(path, logits_shape=(2, 3), opset=17)
    logits = np.array([[np.inf, 0, 0], [0, 0, 0]], dtype=np.float32)
    loss_sum, _, _ = losses(path, logits, np.zeros(2, dtype=np.int32), np.ones(2, dtype=np.float32))
    assert not np.isfinite(loss_sum)
