"""Training: it learns, repeats itself bit for bit, keeps its budgets, and notices when it goes wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from layers.configuration import TrialConfiguration
from layers.declarations.training import TrainingConfig
from layers.signature import signature_of
from tests.workers.scripted_service import FACTS, SPLITS, TEXT, configuration
from workers.data.batches import DataError
from workers.data.splits import Form, LabelledSplit, PairsSplit, TextSplit, specials_of
from workers.training import training_state
from workers.training.loop import Point, Trained, Training, derived_seed
from workers.training.reference import score

CPU = torch.device("cpu")
VALIDATION = TextSplit(TEXT[400_000:402_000], 32).evaluation(1)
NAMES = ("tokens",)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Clock:
    """A clock that is read as if each step took a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make(training: dict[str, Any], device: torch.device = CPU, **options: Any) -> tuple[nn.Module, Training]:
    from layers.modules.model import build

    whole = configuration(training=training)
    section = TrainingConfig.of(whole["training"])
    torch.manual_seed(derived_seed(section.seed, "weights"))
    module = build(whole["model"], dropout=section.dropout, initialization=section.initialization)
    module = module.to(device)
    tokens = options.pop("tokens", TEXT[:40_000])
    split = TextSplit(tokens, section.sequence_length)
    return module, Training(module, split, VALIDATION, section, names=NAMES, choices=256, device=device, **options)


def train(training: dict[str, Any], **options: Any) -> tuple[nn.Module, list[Point], Trained]:
    module, it = make(training, **options)
    points: list[Point] = []
    return module, points, it.run(points.append)


def test_the_loss_falls_below_guessing() -> None:
    module, points, trained = train({"steps": 150, "learning_rate": 1e-2, "batch_size": 16, "eval_every": 50})
    assert [point.step for point in points if point.validation_loss is not None] == [50, 100, 150]
    assert trained.stopped == "budget"
    assert trained.steps == 150
    assert trained.tokens == 150 * 16 * 32
    assert trained.best_validation_loss is not None
    assert trained.best_validation_loss < 3.5 < math.log(256)
    assert score(module, VALIDATION, NAMES, CPU, choices=256).loss == trained.best_validation_loss


def test_the_same_configuration_gives_the_same_losses_bit_for_bit() -> None:
    training = {"steps": 30, "dropout": 0.1, "eval_every": 10}
    first, again, other = (train({**training, "seed": seed})[1] for seed in (1, 1, 2))

    def losses(points: list[Point]) -> list[tuple[float | None, float | None]]:
        return [(point.training_loss, point.validation_loss) for point in points]

    assert losses(first) == losses(again)
    assert losses(first) != losses(other)


def test_the_best_checkpoint_is_what_the_module_holds_afterwards() -> None:
    # Far too high a rate after a good beginning: the last weights are not the best ones.
    module, points, trained = train(
        {"steps": 60, "learning_rate": 0.3, "min_learning_rate": 0.3, "warmup_steps": 60, "eval_every": 5}
    )
    measured = {point.step: point.validation_loss for point in points if point.validation_loss is not None}
    best_step = min(measured, key=lambda step: measured[step] or math.inf)
    assert trained.best_step == best_step < 60
    assert score(module, VALIDATION, NAMES, CPU, choices=256).loss == measured[best_step]


def test_patience_ends_the_training_and_keeps_the_best() -> None:
    _, points, trained = train(
        {
            "steps": 500,
            "learning_rate": 0.3,
            "min_learning_rate": 0.3,
            "warmup_steps": 60,
            "eval_every": 5,
            "patience": 3,
        }
    )
    assert trained.stopped == "patience"
    assert trained.steps == trained.best_step + 15 < 500
    assert "3 evaluations" in trained.reason
    assert points[-1].step == trained.steps


def test_a_loss_that_runs_away_is_called_diverged() -> None:
    _, _, trained = train(
        {"steps": 300, "learning_rate": 10.0, "min_learning_rate": 10.0, "warmup_steps": 0, "gradient_clip": 0.0}
    )
    assert trained.stopped == "diverged"
    assert trained.reason.startswith(f"diverged at step {trained.steps}")
    assert trained.steps < 300


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    module, it = make({"steps": 50})
    with torch.no_grad():
        next(iter(module.parameters())).fill_(math.nan)
    points: list[Point] = []
    trained = it.run(points.append)
    assert (trained.stopped, trained.reason) == ("non_finite", "the training loss is not finite at step 1")
    assert points == []


def test_a_budget_in_tokens_is_rounded_up_to_steps() -> None:
    _, _, trained = train({"steps": None, "tokens": 1000, "batch_size": 4})
    assert trained.steps == math.ceil(1000 / (4 * 32))


def test_a_budget_in_seconds_ends_with_the_clock() -> None:
    clock = Clock()
    _, it = make({"steps": None, "seconds": 20}, clock=clock)
    points: list[Point] = []

    def alive(step: int, fraction: float) -> None:
        clock.seconds = step

    trained = it.run(points.append, alive=alive)
    assert trained.stopped == "budget"
    # The clock moves after the step has asked it, so that the twentieth second is seen in the twenty-first step.
    assert trained.steps == 21
    rates = [point.learning_rate for point in points]
    assert max(rates) == pytest.approx(3e-3, rel=0.02)
    assert rates[0] < rates[3]
    assert rates[-1] == pytest.approx(3e-4, rel=0.1)


def test_what_a_training_waits_for_others_is_in_no_budget_and_changes_no_loss() -> None:
    seen: dict[str, tuple[list[Point], Trained]] = {}
    for kind, waits in (("alone", 0.0), ("shared", 7.0)):
        clock = Clock()
        _, it = make({"steps": None, "seconds": 20, "dropout": 0.1}, clock=clock)
        points: list[Point] = []

        def alive(step: int, fraction: float, clock: Clock = clock) -> None:
            clock.seconds += 1

        def pause(clock: Clock = clock, waits: float = waits) -> float:
            clock.seconds += waits
            return waits

        seen[kind] = points, it.run(points.append, alive=alive, pause=pause)
    (alone, without), (shared, paused) = seen["alone"], seen["shared"]
    assert shared == alone
    assert (paused.steps, paused.seconds) == (without.steps, without.seconds)
    assert (without.paused_seconds, paused.paused_seconds) == (0.0, 7.0 * paused.steps)


def test_the_learning_rate_warms_up_and_decays_to_its_least() -> None:
    _, points, _ = train(
        {"steps": 100, "learning_rate": 1e-3, "min_learning_rate": 1e-4, "warmup_steps": 10, "eval_every": 100}
    )
    rates = {point.step: point.learning_rate for point in points}
    assert rates[1] == pytest.approx(1e-3 / 11)
    assert rates[5] == pytest.approx(5e-3 / 11)
    assert max(rates.values()) == pytest.approx(1e-3, rel=1e-3)
    assert rates[100] == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize(("steps", "warmup_steps"), [(2, 1), (3, 0), (20, 5), (20, 19), (20, 20)])
def test_the_schedule_is_nanogpt_s(steps: int, warmup_steps: int) -> None:
    """`get_lr` of karpathy/nanoGPT's loop.py, with `lr_decay_iters` as many as there are steps."""
    highest, lowest = 0.01, 0.001

    def get_lr(step: int) -> float:
        if step < warmup_steps:
            return highest * (step + 1) / (warmup_steps + 1)
        ratio = (step - warmup_steps) / (steps - warmup_steps)
        return lowest + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (highest - lowest)

    schedule = {"learning_rate": highest, "min_learning_rate": lowest, "warmup_steps": warmup_steps}
    _, points, _ = train({"steps": steps, "eval_every": steps, **schedule})
    assert [point.step for point in points] == list(range(1, steps + 1))
    assert [point.learning_rate for point in points] == pytest.approx([get_lr(step) for step in range(steps)])


def test_another_thread_can_stop_it() -> None:
    _, it = make({"steps": 100_000})
    stop = threading.Event()

    def alive(step: int, fraction: float) -> None:
        if step == 5:
            stop.set()

    trained = it.run(lambda point: None, alive=alive, stop=stop)
    assert (trained.stopped, trained.steps) == ("asked", 5)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("stopped_after", [4, 13, 20])
def test_a_stopped_training_goes_on_as_if_it_had_not_been_stopped(
    tmp_path: Path, stopped_after: int, name: str
) -> None:
    device = torch.device(name)
    section = {"steps": 30, "dropout": 0.1, "eval_every": 10, "patience": 2, "warmup_steps": 6}
    whole, points, ended = train(section, device=device)
    _, stopped = make(section, device=device)
    stop = threading.Event()
    seen: list[Point] = []

    def alive(step: int, fraction: float) -> None:
        if step == stopped_after:
            stop.set()

    assert stopped.run(seen.append, alive=alive, stop=stop).steps == stopped_after
    training_state.write(tmp_path / "state.pt", stopped.state())
    module, again = make(section, device=device)
    resumed = again.run(seen.append, resume=training_state.read(tmp_path / "state.pt"))

    def losses(of: list[Point]) -> list[tuple[int, float | None, float | None, float]]:
        return [(each.step, each.training_loss, each.validation_loss, each.learning_rate) for each in of]

    assert losses(seen) == losses(points)
    assert (resumed.stopped, resumed.steps, resumed.best_step, resumed.best_validation_loss) == (
        ended.stopped,
        ended.steps,
        ended.best_step,
        ended.best_validation_loss,
    )
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in module.state_dict().items())


def test_a_file_that_is_no_state_of_a_training_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not one")
    assert training_state.read(tmp_path / "state.pt") is None
    assert training_state.read(tmp_path / "missing.pt") is None
    torch.save({"format": 0}, tmp_path / "state.pt")
    assert training_state.read(tmp_path / "state.pt") is None


def test_too_short_a_text_is_an_error() -> None:
    with pytest.raises(DataError, match="too few for sequences of 32"):
        train({"steps": 1}, tokens=TEXT[:32])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_score_does_not_depend_on_the_grouping_and_leaves_padding_out(batch_size: int) -> None:
    module, _ = make({"steps": 1})
    batches = TextSplit(TEXT[:1000], 32).evaluation(batch_size)
    found = score(module, batches, NAMES, CPU, choices=256)
    assert found.targets == 999
    examples = batches.in_one()
    with torch.inference_mode():
        logits = module.eval()(torch.from_numpy(examples.inputs["tokens"])).double()
    wanted = examples.targets.flatten().astype(int)
    of_targets = torch.log_softmax(logits, -1).flatten(0, 1)[torch.arange(len(wanted)), wanted]
    assert found.loss == pytest.approx(-of_targets[:999].mean().item(), rel=1e-6)


def test_what_is_frozen_stays_and_the_rest_learns() -> None:
    module, _ = make({"steps": 1})
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    table = next(module.parameters())
    table.requires_grad_(True)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training = TrainingConfig.of(configuration(training={"steps": 3})["training"])
    split = TextSplit(TEXT[:40_000], 32)
    Training(module, split, VALIDATION, training, names=NAMES, choices=256, device=CPU).run(lambda point: None)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(module.state_dict()[name].data_ptr() == table.data_ptr() for name in changed)


@pytest.mark.parametrize("task", ["classification", "seq2seq"])
@pytest.mark.parametrize("budget", [{"steps": 6}, {"steps": None, "tokens": 250}, {"steps": None, "seconds": 5}])
def test_every_task_keeps_every_budget(task: str, budget: dict[str, Any]) -> None:
    from layers.modules.model import build

    whole = TrialConfiguration.of(configuration(task=task, training={**budget, "eval_every": 2, "patience": 50}))
    assert whole.training is not None
    names = [given.name for given in signature_of(whole).inputs]
    form = Form.of(names, whole.training, specials_of(FACTS[task]))
    splits = {"classification": LabelledSplit, "seq2seq": PairsSplit}
    training, validation = (splits[task](SPLITS[task][name], form) for name in ("training", "validation"))
    clock = Clock()
    it = Training(
        build(whole.model),
        training,
        validation.evaluation(1),
        whole.training,
        names=names,
        choices=signature_of(whole).outputs[0].shape[-1],
        device=CPU,
        clock=clock,
    )
    points: list[Point] = []

    def alive(step: int, fraction: float) -> None:
        clock.seconds = step

    trained = it.run(points.append, alive=alive)
    # The clock moves after the step has asked it: five seconds are seen in the sixth step.
    steps = whole.training.step_count() or 6
    assert (trained.stopped, trained.steps) == ("budget", steps)
    assert trained.tokens == trained.steps * 4 * form.sequence_length
    assert [point.step for point in points if point.validation_loss is not None][:2] == [2, 4]
