"""No parameter of training and inference is accepted and ignored: each is changed alone, and what it is for changes.

Those of the model are in tests/layers/modules/test_no_parameter_is_ignored.py, those that devices share a model by
below.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from layers.completion import complete
from layers.declarations.inference.parameters import INFERENCE, InferenceConfig
from layers.declarations.kinds import KINDS
from layers.declarations.model import APPLIES, DECLARATIONS, broken_rules
from layers.declarations.tensor_parallel import SHARED
from layers.declarations.training import TRAINING, TrainingConfig
from layers.modules.model import build, set_trainable
from layers.modules.tensor_parallel import ColumnLinear, Group, split
from layers.signature import signature
from tests.layers.combinations import BASES, FACTS, lively
from tests.layers.modules import test_no_parameter_is_ignored as of_models
from tests.workers.scripted_service import FACTS as DATA_FACTS
from tests.workers.scripted_service import SPLITS, TEXT, configuration
from workers.data.batches import Batches
from workers.data.splits import Form, PairsSplit, TextSplit, specials_of
from workers.training.loop import Point, Training, derived_seed

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"steps": 12, "batch_size": 4, "sequence_length": 16, "eval_every": 4, "warmup_steps": 2}
WILD: dict[str, Any] = {"learning_rate": 3.0, "min_learning_rate": 3.0, "eval_every": 1, "steps": 30}

TRAINING_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "steps": (SHORT, {"steps": 13}),
    "tokens": (SHORT, {"steps": None, "tokens": 5 * 64}),
    "seconds": (SHORT, {"steps": None, "seconds": 30.0}),
    "batch_size": (SHORT, {"batch_size": 5}),
    "sequence_length": (SHORT, {"sequence_length": 15}),
    "learning_rate": ({**SHORT, "min_learning_rate": 1e-4}, {"learning_rate": 2e-3}),
    "min_learning_rate": (SHORT, {"min_learning_rate": 1e-5}),
    "warmup_steps": (SHORT, {"warmup_steps": 5}),
    "beta1": (SHORT, {"beta1": 0.5}),
    "beta2": (SHORT, {"beta2": 0.5}),
    "weight_decay": (SHORT, {"weight_decay": 1.0}),
    "dropout": (SHORT, {"dropout": 0.5}),
    "initialization": (SHORT, {"initialization": "fan_in"}),
    "gradient_clip": (SHORT, {"gradient_clip": 1e-3}),
    "eval_every": (SHORT, {"eval_every": 3}),
    "patience": ({**SHORT, **WILD}, {"patience": 1}),
    "seed": (SHORT, {"seed": 1}),
    "trainable": (SHORT, {"trainable": "prompt"}),
}
"""Parameter -> what is trained beside it, and its other value."""


class Seconds:
    """A clock that is read once a second."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self._seconds))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def validation() -> Batches:
    return TextSplit(TEXT[400_000:400_400], 16).evaluation(1)


def trained(changes: dict[str, Any]) -> tuple[Any, ...]:
    """All that a training shows: its curve, how it ended, and the weights."""
    prompt = {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 3}
    whole = configuration(model=prompt, training=changes)
    training = TrainingConfig.of(whole["training"])
    torch.manual_seed(derived_seed(training.seed, "weights"))
    module: nn.Module = build(whole["model"], dropout=training.dropout, initialization=training.initialization)
    set_trainable(module, training.trainable)
    split = TextSplit(TEXT[:20_000], training.sequence_length)
    points: list[Point] = []
    it = Training(module, split, validation(), training, names=("tokens",), choices=256, device=CPU, clock=Seconds())
    ended = it.run(points.append)
    curve = [(point.step, point.tokens, point.training_loss, point.validation_loss) for point in points]
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in module.parameters())
    return curve, ended.stopped, ended.steps, weights


@pytest.mark.parametrize("name", TRAINING_CASES)
def test_a_parameter_of_training_changed_alone_changes_the_training(name: str) -> None:
    beside, change = TRAINING_CASES[name]
    assert trained(beside) != trained({**beside, **change})


def test_a_source_length_changes_what_is_read() -> None:
    specials = specials_of(DATA_FACTS["seq2seq"])
    shapes = [
        PairsSplit(SPLITS["seq2seq"]["training"], Form.of(("source",), section, specials))
        .evaluation(2)
        .inputs["source"]
        .shape
        for section in (InferenceConfig(batch_size=2, sequence_length=40, source_length=length) for length in (40, 41))
    ]
    assert [shape[-1] for shape in shapes] == [40, 41]


@pytest.mark.parametrize("name", ["batch_size", "sequence_length", "source_length"])
def test_a_parameter_of_the_shape_changes_what_is_measured(name: str) -> None:
    model = complete("seq2seq", {**BASES["encoder_decoder"], "kind": "encoder_decoder"}, FACTS["seq2seq"])
    shape = {"batch_size": 2, "sequence_length": 8, "source_length": 6}
    signatures = [signature("seq2seq", model, **each) for each in (shape, {**shape, name: 3})]
    assert signatures[0] != signatures[1]


BUILDER_CASES = {"optimization_level": 1, "workspace_mib": 256, "weights_mib": 64}


@pytest.mark.parametrize(("name", "value"), BUILDER_CASES.items())
def test_a_build_option_is_the_builders(name: str, value: int) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    from workers.engine.tensorrt.rtx import TensorRtRtxEngine

    engine = TensorRtRtxEngine()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    defaults = {option: declared.default for option, declared in engine.build_options.items()}
    sections = [{"batch_size": 1, "sequence_length": 8, **given} for given in ({}, {name: value})]
    found = [
        engine._config(builder, None, {**defaults, **InferenceConfig.of(section).build_options()})
        for section in sections
    ]
    read = {
        "optimization_level": lambda config: config.builder_optimization_level,
        "workspace_mib": lambda config: config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE),
        "weights_mib": lambda config: config.get_flag(trt.BuilderFlag.WEIGHT_STREAMING),
    }[name]
    assert read(found[0]) != read(found[1])


SHARING: list[tuple[str, str, Any]] = [
    *((kind, "tp_size", 1) for kind in KINDS if KINDS[kind].has("tp_size")),
    ("decoder", "attention.tp_size", 1),
    ("decoder", "mlp.tp_size", 1),
    ("decoder", "embedding.tp_size", 1),
    ("decoder", "embedding.sharding_dim", 1),
    ("linear", "linear.tp_size", 1),
    ("linear", "linear.gather_output", False),
    ("linear", "linear.kind", "RowLinear"),
]
"""Kind, parameter, and its other value, of a model that two devices share."""


def held(kind: str, changes: dict[str, Any]) -> list[Any]:
    """What one of two processes has of a model, and whether it gathers what comes out."""
    task = KINDS[kind].task
    model = complete(task, {**BASES[kind], "kind": kind, "tp_size": 2, **changes}, FACTS[task])
    assert broken_rules(model) == []
    module = split(lively(model), model, Group(0, 2))
    shapes = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
    return [shapes, [layer.gather_output for layer in module.modules() if isinstance(layer, ColumnLinear)]]


@pytest.mark.parametrize(("kind", "path", "value"), SHARING)
def test_a_parameter_of_sharing_changed_alone_changes_what_a_device_has(kind: str, path: str, value: Any) -> None:
    assert held(kind, {}) != held(kind, {path: value})


def test_no_parameter_is_left_out() -> None:
    shared = {path for _, path, _ in SHARING}
    assert {path for path, condition in APPLIES.items() if condition == SHARED} | {"tp_size"} <= shared
    walked = {path for _, path, _ in of_models._cases()}
    assert set(DECLARATIONS) - walked - shared == {"kind"}
    # Tests of their own: of a checkpoint's weights, and of generating, whose mode is the same for all trials.
    assert set(TRAINING) == {*TRAINING_CASES, "source_length", "initialize_from"}
    lengths = {"batch_size", "sequence_length", "source_length", "mode", "prompt_tokens", "new_tokens"}
    assert set(INFERENCE) == {*lengths, *BUILDER_CASES}
