"""A step of a training: captured as a CUDA graph it computes what it computes kernel by kernel, bit for bit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from layers.configuration import TrialConfiguration
from layers.declarations.training import TrainingConfig
from layers.modules.model import build
from layers.signature import signature_of
from tests.workers.scripted_service import FACTS, SPLITS, configuration
from workers.data.splits import Form, LabelledSplit, PairsSplit, Split, TextSplit, specials_of
from workers.training.loop import derived_seed
from workers.training.step import STEPS_BEFORE_CAPTURE, CapturedStep, Step, step_for

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rotary": ("causal_lm", {"attention.position_embedding_type": "rope_gpt_neox"}, {}),
    "learned": ("causal_lm", {"attention.position_embedding_type": "learned_absolute"}, {}),
    "alibi": ("causal_lm", {"attention.position_embedding_type": "alibi"}, {}),
    "relative": ("causal_lm", {"attention.position_embedding_type": "relative"}, {}),
    "gated": ("causal_lm", {"mlp.kind": "FusedGatedMLP", "mlp.hidden_act": "silu", "norm.kind": "RmsNorm"}, {}),
    "no clipping": ("causal_lm", {}, {"gradient_clip": 0.0}),
    "classification": ("classification", {}, {}),
    "custom mask": ("classification", {"attention.attention_mask_type": "custom_mask"}, {}),
    "seq2seq": ("seq2seq", {}, {}),
}


@pytest.fixture(autouse=True)
def _as_the_torch_child() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_cudnn_sdp(False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_cudnn_sdp(True)


def split_of(whole: TrialConfiguration, names: tuple[str, ...]) -> Split:
    task, section = whole.task, whole.training
    assert section is not None
    form = Form.of(names, section, specials_of(FACTS[task]))
    arrays = SPLITS[task]["training"]
    if task == "causal_lm":
        return TextSplit(arrays["tokens"], form.sequence_length)
    return LabelledSplit(arrays, form) if task == "classification" else PairsSplit(arrays, form)


def losses(
    kind: type[Step], case: tuple[str, dict[str, Any], dict[str, Any]], steps: int, device: str
) -> tuple[list[float], Step]:
    task, model, training = case
    whole = TrialConfiguration.of(configuration(model, {"dropout": 0.2, **training}, task=task))
    section = whole.training
    assert section is not None
    torch.manual_seed(derived_seed(section.seed, "weights"))
    module = build(whole.model, dropout=section.dropout, initialization=section.initialization)
    names = tuple(given.name for given in signature_of(whole).inputs)
    where = torch.device(device)
    step = kind(module.to(where).train(), section, names=names, device=where)
    torch.manual_seed(derived_seed(section.seed, "dropout"))
    batches = split_of(whole, names).training(np.random.default_rng(1), section.batch_size)
    taken = [step.take(next(batches), 1e-3 * (number + 1) / steps) for number in range(steps)]
    return torch.stack(taken).tolist(), step


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_captured_step_computes_the_same_bit_for_bit(case: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    captured, step = losses(CapturedStep, case, 50, "cuda")
    assert isinstance(step, CapturedStep)
    assert step.is_captured
    assert captured == losses(Step, case, 50, "cuda")[0]


@pytest.mark.gpu
def test_what_cannot_be_captured_is_launched_kernel_by_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    update = Step._update

    def waits_for_the_gpu(self: Step, given: Any) -> torch.Tensor:
        loss = update(self, given)
        loss.item()
        return loss

    expected, _ = losses(Step, CASES["rotary"], 10, "cuda")
    monkeypatch.setattr(Step, "_update", waits_for_the_gpu)
    with caplog.at_level(logging.WARNING):
        found, step = losses(CapturedStep, CASES["rotary"], 10, "cuda")
    assert isinstance(step, CapturedStep)
    assert not step.is_captured
    assert found == expected
    assert "cannot be captured" in caplog.text
    assert STEPS_BEFORE_CAPTURE < 10


def module_and_step_on_cpu(whole: Mapping[str, Any]) -> tuple[nn.Module, Step]:
    module, training = build(whole["model"]), TrainingConfig.of(whole["training"])
    return module, step_for(module, training, names=("tokens",), device=torch.device("cpu"))


def test_a_cpu_takes_its_steps_kernel_by_kernel() -> None:
    _, step = module_and_step_on_cpu(configuration())
    assert type(step) is Step


def test_weights_decay_in_matrices_only() -> None:
    module, step = module_and_step_on_cpu(configuration(training={"weight_decay": 0.3}))
    decays = {each: group["weight_decay"] for group in step._optimizer.param_groups for each in group["params"]}
    assert {parameter.ndim >= 2: decay for parameter, decay in decays.items()} == {True: 0.3, False: 0.0}
    assert len(decays) == len(list(module.parameters()))
