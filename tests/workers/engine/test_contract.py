"""What every runtime of the engine child must do, over its real protocol. A new target passes this suite unchanged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from layers.export.quantization import quantize
from tests.workers import graphs
from tests.workers.engine_parent import ENGINE_PYTHON, ROOT, Parent, Refused
from workers.engine.__main__ import RUNTIMES
from workers.engine.turns.arbitration import alone

MEASURE = {"warmup_seconds": 0.01, "seconds": 0.05, "min_runs": 20}


@pytest.fixture(scope="module", params=["onnxruntime", "tensorrt", "tensorrt_rtx"])
def capabilities(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of each runtime that can at least build here."""
    if request.param not in RUNTIMES:
        pytest.skip(f"{request.param} has no target file")
    with Parent() as parent:
        try:
            return parent.ask("describe", runtime=request.param)
        except Refused as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="module")
def builds(capabilities: dict[str, Any]) -> str:
    """A runtime that can build here."""
    return capabilities["runtime"]


@pytest.fixture(scope="module")
def runtime(capabilities: dict[str, Any]) -> str:
    """A runtime that can execute here."""
    if capabilities["build_only"]:
        pytest.skip(f"{capabilities['runtime']} builds here but does not run")
    return capabilities["runtime"]


@pytest.fixture
def child() -> Iterator[Parent]:
    with Parent() as parent:
        yield parent


@pytest.fixture(scope="module")
def model() -> graphs.LanguageModel:
    return graphs.LanguageModel.make()


@pytest.fixture(scope="module")
def onnx_file(model: graphs.LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture(scope="module")
def engine_file(runtime: str, onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that another process built."""
    path = tmp_path_factory.mktemp("engine") / "model.engine"
    with Parent() as parent:
        parent.ask("build", runtime=runtime, onnx=str(onnx_file), engine=str(path))
    return path


@pytest.fixture
def loaded(child: Parent, runtime: str, engine_file: Path) -> Parent:
    child.ask("load", runtime=runtime, engine=str(engine_file))
    return child


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def heard(child: Parent) -> dict[str, Any]:
    """The next message of a child."""
    return json.loads(child.answers.readline())


# --- describe and build ---------------------------------------------------------------------------------------------


def test_describe_says_what_a_worker_registers(child: Parent, builds: str) -> None:
    capabilities = child.ask("describe", runtime=builds)
    assert set(capabilities) == {
        "runtime",
        "version",
        "device_model",
        "opset",
        "dtypes",
        "quantizations",
        "devices",
        "device_memory_bytes",
        "compute_capability",
        "build_only",
        "build_options",
        "lacks",
    }
    assert capabilities["runtime"] == builds
    assert capabilities["version"]
    assert capabilities["device_model"]
    assert graphs.OPSET <= capabilities["opset"] <= 64
    assert "float32" in capabilities["dtypes"]
    assert capabilities["devices"] >= 1
    assert capabilities["build_only"] or capabilities["device_memory_bytes"] > 2**28


def test_build_writes_an_engine_and_says_what_it_needs(
    child: Parent, builds: str, model: graphs.LanguageModel, onnx_file: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "model.engine"
    built = child.ask("build", runtime=builds, onnx=str(onnx_file), engine=str(engine), options={})
    assert set(built) == {"engine_bytes", "weights_bytes", "activation_bytes", "io_bytes", "build_seconds"}
    assert built["engine_bytes"] == engine.stat().st_size
    assert model.weights_bytes <= built["weights_bytes"] <= 1.1 * model.weights_bytes
    assert built["io_bytes"] == model.io_bytes
    assert built["build_seconds"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.engine"]


def test_a_build_waits_while_something_is_measured_on_its_device(
    child: Parent, builds: str, onnx_file: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    with alone(device, lambda: None):
        request = {
            "runtime": builds,
            "onnx": str(onnx_file),
            "engine": str(tmp_path / "it.engine"),
            "turns": str(device),
        }
        child.post("build", **request)
        assert heard(child)["progress"]["waiting"]
    assert child.answer()["ok"]


def test_a_load_waits_while_something_is_measured_on_its_device(
    child: Parent, runtime: str, engine_file: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    with alone(device, lambda: None):
        child.post("load", runtime=runtime, engine=str(engine_file), turns=str(device))
        assert heard(child)["progress"]["waiting"]
    assert child.answer()["ok"]


def test_scratch_memory_lies_between_the_widest_step_and_all_intermediate_tensors(
    child: Parent, runtime: str, tmp_path: Path
) -> None:
    model = graphs.LanguageModel.make(batch=4, tokens=32, width=64, blocks=4)
    path = model.save(tmp_path / "wide.onnx")
    built = child.ask("build", runtime=runtime, onnx=str(path), engine=str(tmp_path / "wide.engine"))
    narrow = 4 * 4 * 32 * 64
    wide = 4 * narrow
    assert narrow + wide <= built["activation_bytes"] <= 4 * (2 * wide + 2 * narrow) + narrow


def test_the_same_graph_needs_the_same_memory_each_time(
    child: Parent, runtime: str, onnx_file: Path, tmp_path: Path
) -> None:
    built = [
        child.ask("build", runtime=runtime, onnx=str(onnx_file), engine=str(tmp_path / f"{turn}.engine"))
        for turn in range(3)
    ]
    # Not the file's size: TensorRT's builder may choose other kernels, and a plan carries them.
    sizes = [(one["weights_bytes"], one["activation_bytes"], one["io_bytes"]) for one in built]
    assert sizes[0] == sizes[1] == sizes[2]


def test_the_engine_stands_alone(child: Parent, runtime: str, model: graphs.LanguageModel, tmp_path: Path) -> None:
    """An export of more than 2 GB keeps its weights in a second file: they are built in, or the build is refused."""
    folder = tmp_path / "export"
    folder.mkdir()
    onnx.save(
        model.model(), folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    engine = tmp_path / "model.engine"
    try:
        child.ask("build", runtime=runtime, onnx=str(folder / "model.onnx"), engine=str(engine))
    except Refused as refused:
        assert refused.kind == "unsupported"  # noqa: PT017 - a runtime may do either
        assert "second file" in refused.message  # noqa: PT017
        assert not engine.exists()
        return
    shutil.rmtree(folder)
    child.ask("load", runtime=runtime, engine=str(engine))


def test_a_killed_build_leaves_no_half_engine(child: Parent, runtime: str, tmp_path: Path) -> None:
    model = graphs.LanguageModel.make(width=1024, blocks=4)
    path, engine = model.save(tmp_path / "large.onnx"), tmp_path / "large.engine"
    child.post("build", runtime=runtime, onnx=str(path), engine=str(engine))
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*engine*")) and time.monotonic() < deadline:
        time.sleep(0.0005)
    child.process.kill()
    assert child.process.wait(30) == -signal.SIGKILL
    if engine.exists():
        with Parent() as other:
            other.ask("load", runtime=runtime, engine=str(engine))


# --- run, measure, loss ---------------------------------------------------------------------------------------------


def test_run_equals_numpy(loaded: Parent, model: graphs.LanguageModel, tmp_path: Path) -> None:
    for seed in range(3):
        tokens = model.inputs(seed)
        assert (
            loaded.ask("run", inputs=save(tmp_path / "in.npz", tokens=tokens), outputs=str(tmp_path / "out.npz")) == {}
        )
        with np.load(tmp_path / "out.npz") as outputs:
            assert outputs.files == ["logits"]
            assert outputs["logits"].dtype == np.float32
            expected = model.logits(tokens)
            error = np.linalg.norm(outputs["logits"] - expected) / np.linalg.norm(expected)
            assert error < 1e-5


def test_a_quantized_graph_is_built_and_its_products_are_rounded(
    child: Parent, capabilities: dict[str, Any], model: graphs.LanguageModel, tmp_path: Path
) -> None:
    assert "int8" in capabilities["quantizations"]
    runtime, onnx_file, engine = capabilities["runtime"], model.save(tmp_path / "int8.onnx"), tmp_path / "int8.engine"
    tokens = model.inputs()
    assert quantize(onnx_file, "int8", {"tokens": tokens[None]}) == 2 * len(model.blocks)
    child.ask("build", runtime=runtime, onnx=str(onnx_file), engine=str(engine))
    if capabilities["build_only"]:
        return
    child.ask("load", runtime=runtime, engine=str(engine))
    child.ask("run", inputs=save(tmp_path / "in.npz", tokens=tokens), outputs=str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as outputs:
        expected = model.logits(tokens)
        error = np.linalg.norm(outputs["logits"] - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 3e-2


def test_load_says_how_much_memory_it_took(child: Parent, runtime: str, tmp_path: Path) -> None:
    model = graphs.LanguageModel.make(width=512, blocks=2)
    engine = tmp_path / "model.engine"
    with Parent() as builder:
        builder.ask("build", runtime=runtime, onnx=str(model.save(tmp_path / "model.onnx")), engine=str(engine))
    taken = child.ask("load", runtime=runtime, engine=str(engine), options={})
    assert set(taken) == {"device_memory_bytes"}
    assert taken["device_memory_bytes"] >= 0.9 * model.weights_bytes


def test_measure_is_consistent(loaded: Parent, runtime: str, model: graphs.LanguageModel, tmp_path: Path) -> None:
    measured = loaded.ask("measure", inputs=save(tmp_path / "in.npz", tokens=model.inputs()), options=MEASURE)
    samples = np.array(measured["samples_ms"])
    assert measured["runs"] >= MEASURE["min_runs"]
    assert len(samples) == min(measured["runs"], 10_000)
    assert samples.min() > 0
    assert samples.min() <= measured["latency_ms_p50"] <= measured["latency_ms_p90"] <= measured["latency_ms_p99"]
    assert measured["latency_ms_mean"] > 0
    assert measured["runs_per_s"] == pytest.approx(1000 / measured["latency_ms_mean"])
    assert measured["flagged"] == (measured["latency_cv"] > 0.025)
    if measured["runs"] <= 10_000:
        assert measured["latency_ms_p50"] == pytest.approx(np.median(samples))
        assert measured["latency_ms_mean"] == pytest.approx(samples.mean())
        assert measured["latency_cv"] == pytest.approx(samples.std(ddof=1) / samples.mean())
    environment = measured["environment"]
    assert environment["runtime"] == runtime
    assert environment["stopped_by"] in ("seconds", "confidence")
    assert environment["warmup_runs"] >= environment["input_sets"] == 4
    assert {"cpu_model", "cpu_governor", "clock", "clock_source", "load_average_before"} <= set(environment)


def test_a_measurement_may_say_what_to_load(
    child: Parent, runtime: str, engine_file: Path, model: graphs.LanguageModel, tmp_path: Path
) -> None:
    inputs, load = save(tmp_path / "in.npz", tokens=model.inputs()), {"runtime": runtime, "engine": str(engine_file)}
    answer = child.ask("measure", load=load, inputs=inputs, options=MEASURE, turns=str(tmp_path / "device"))
    assert set(answer) == {"loaded", "measured"}
    assert set(answer["loaded"]) == {"device_memory_bytes"}
    assert answer["measured"]["runs"] >= MEASURE["min_runs"]
    assert answer["measured"]["environment"]["waited_seconds"] == 0
    child.ask("run", inputs=inputs, outputs=str(tmp_path / "out.npz"))
    with pytest.raises(Refused, match="close it first"):
        child.ask("measure", load=load, inputs=inputs, options=MEASURE)
    assert child.ask("measure", inputs=inputs, options=MEASURE)["runs"] >= MEASURE["min_runs"]


def test_measure_goes_on_until_the_figures_asked_for_are_known(
    loaded: Parent, model: graphs.LanguageModel, tmp_path: Path
) -> None:
    inputs = save(tmp_path / "in.npz", tokens=model.inputs())
    measured = loaded.ask("measure", inputs=inputs, options=MEASURE, figures=["latency_ms_p99", "latency_ms_mean"])
    assert measured["environment"]["figures"] == ["latency_ms_mean", "latency_ms_p99"]
    for wrong in (["latency_ms_p42"], "latency_ms_p50", [99]):
        with pytest.raises(Refused, match="latency_ms_p99") as refused:
            loaded.ask("measure", inputs=inputs, options=MEASURE, figures=wrong)
        assert refused.value.kind == "invalid"


def test_measure_takes_several_input_sets(loaded: Parent, model: graphs.LanguageModel, tmp_path: Path) -> None:
    stacked = np.stack([model.inputs(seed) for seed in range(3)])
    measured = loaded.ask("measure", inputs=save(tmp_path / "in.npz", tokens=stacked), options=MEASURE)
    assert measured["environment"]["input_sets"] == 3


@pytest.mark.parametrize("name", ["tokens", "inputs"])
def test_loss_equals_numpy(name: str, loaded: Parent, model: graphs.LanguageModel, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    inputs = np.stack([model.inputs(seed) for seed in range(5)])
    targets = random.integers(0, model.vocabulary, inputs.shape, dtype=np.int32)
    targets[0] = model.logits(inputs[0]).argmax(axis=-1)
    weights = random.choice([0.0, 0.5, 1.0], inputs.shape).astype(np.float32)
    loss_graph = graphs.save_loss(tmp_path / "loss.onnx", (model.batch, model.tokens, model.vocabulary))
    batches = save(tmp_path / "batches.npz", **{name: inputs}, targets=targets, weights=weights)
    found = loaded.ask("loss", loss_graph=str(loss_graph), batches=batches)
    loss_sum, weight_sum, correct = graphs.cross_entropy(model.logits(inputs), targets, weights)
    assert found["loss_sum"] == pytest.approx(loss_sum, rel=1e-5)
    assert found["weight_sum"] == pytest.approx(weight_sum)
    assert found["correct"] == pytest.approx(correct)
    assert len(found["block_loss_sums"]) == len(inputs)
    assert sum(found["block_loss_sums"]) == pytest.approx(found["loss_sum"])


def test_an_engine_can_be_closed_and_another_loaded(
    loaded: Parent, runtime: str, model: graphs.LanguageModel, engine_file: Path, tmp_path: Path
) -> None:
    assert loaded.ask("close") == {}
    assert loaded.ask("close") == {}
    with pytest.raises(Refused, match="no engine is loaded"):
        loaded.ask("run", inputs=save(tmp_path / "in.npz", tokens=model.inputs()), outputs=str(tmp_path / "out.npz"))
    loaded.ask("load", runtime=runtime, engine=str(engine_file))
    loaded.ask("run", inputs=str(tmp_path / "in.npz"), outputs=str(tmp_path / "out.npz"))


# --- errors: each a clean answer, and the process stays -------------------------------------------------------------


def test_a_bad_onnx_file_is_a_failed_build(child: Parent, builds: str, onnx_file: Path, tmp_path: Path) -> None:
    whole = onnx_file.read_bytes()
    for content in (b"", b"this is no graph", whole[: len(whole) // 2], whole[:-3]):
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(content)
        with pytest.raises(Refused, match=r"broken\.onnx") as refused:
            child.ask("build", runtime=builds, onnx=str(broken), engine=str(tmp_path / "broken.engine"))
        assert refused.value.kind == "build"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.onnx"]
    child.ask("build", runtime=builds, onnx=str(onnx_file), engine=str(tmp_path / "good.engine"))


def test_an_unknown_operator_is_named(child: Parent, builds: str, tmp_path: Path) -> None:
    path = graphs.unknown_operator(tmp_path / "unknown.onnx")
    with pytest.raises(Refused, match="Frobnicate") as refused:
        child.ask("build", runtime=builds, onnx=str(path), engine=str(tmp_path / "unknown.engine"))
    assert refused.value.kind in ("build", "unsupported")


def test_a_model_beyond_memory_fails_and_the_next_one_builds(
    child: Parent, builds: str, onnx_file: Path, tmp_path: Path
) -> None:
    path, engine = graphs.beyond_memory(tmp_path / "beyond.onnx"), tmp_path / "beyond.engine"
    with pytest.raises(Refused) as refused:
        child.ask("build", runtime=builds, onnx=str(path), engine=str(engine))
    assert refused.value.kind in ("out_of_memory", "build")
    assert not engine.exists()
    child.ask("build", runtime=builds, onnx=str(onnx_file), engine=str(engine))


def test_an_opset_beyond_the_highest_is_unsupported(
    child: Parent, builds: str, model: graphs.LanguageModel, tmp_path: Path
) -> None:
    proto = model.model()
    proto.opset_import[0].version = child.ask("describe", runtime=builds)["opset"] + 1
    (tmp_path / "new.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(Refused) as refused:
        child.ask("build", runtime=builds, onnx=str(tmp_path / "new.onnx"), engine=str(tmp_path / "new.engine"))
    assert refused.value.kind in ("build", "unsupported")


def test_open_shapes_are_refused(child: Parent, builds: str, model: graphs.LanguageModel, tmp_path: Path) -> None:
    onnx.save(model.model(batch="batch"), tmp_path / "open.onnx")
    with pytest.raises(Refused, match="static shapes") as refused:
        child.ask("build", runtime=builds, onnx=str(tmp_path / "open.onnx"), engine=str(tmp_path / "open.engine"))
    assert refused.value.kind == "build"
    assert not (tmp_path / "open.engine").exists()


def test_a_failed_build_leaves_the_old_engine(child: Parent, runtime: str, engine_file: Path, tmp_path: Path) -> None:
    engine, broken = tmp_path / "model.engine", tmp_path / "broken.onnx"
    shutil.copy(engine_file, engine)
    broken.write_bytes(b"nothing")
    with pytest.raises(Refused):
        child.ask("build", runtime=runtime, onnx=str(broken), engine=str(engine))
    assert engine.read_bytes() == engine_file.read_bytes()


def test_a_damaged_engine_file_is_refused(child: Parent, runtime: str, engine_file: Path, tmp_path: Path) -> None:
    whole = engine_file.read_bytes()
    damaged = tmp_path / "damaged.engine"
    for content in (b"", b"no engine", whole[: len(whole) // 2], whole[:-1]):
        damaged.write_bytes(content)
        with pytest.raises(Refused, match=r"damaged\.engine") as refused:
            child.ask("load", runtime=runtime, engine=str(damaged))
        assert refused.value.kind == "invalid"
    child.ask("load", runtime=runtime, engine=str(engine_file))


def test_files_that_are_not_there_are_named(child: Parent, runtime: str, onnx_file: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for verb, arguments in (
        ("build", {"onnx": nowhere, "engine": str(tmp_path / "engine")}),
        ("build", {"onnx": str(onnx_file), "engine": f"{nowhere}/engine"}),
        ("load", {"engine": nowhere}),
    ):
        with pytest.raises(Refused, match="nowhere") as refused:
            child.ask(verb, runtime=runtime, **arguments)
        assert refused.value.kind == "invalid"


def test_inputs_that_do_not_fit_are_refused_with_what_would(
    loaded: Parent, model: graphs.LanguageModel, tmp_path: Path
) -> None:
    tokens = model.inputs()
    wrong = {
        "is missing": {"others": tokens},
        "has no input extra": {"tokens": tokens, "extra": tokens},
        r"int64 \[2, 8\]; the engine takes tokens: int32 \[2, 8\]": {"tokens": tokens.astype(np.int64)},
        r"int32 \[2, 7\]": {"tokens": tokens[:, :7]},
        r"int32 \[2, 2, 2, 8\]": {"tokens": np.stack([[tokens] * 2] * 2)},
    }
    for verb in ("run", "measure"):
        for message, arrays in wrong.items():
            arguments = {"outputs": str(tmp_path / "out.npz")} if verb == "run" else {}
            with pytest.raises(Refused, match=message) as refused:
                loaded.ask(verb, inputs=save(tmp_path / "in.npz", **arrays), **arguments)
            assert refused.value.kind == "invalid"
    assert not (tmp_path / "out.npz").exists()


def test_arrays_that_cannot_be_read_are_refused(loaded: Parent, tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", tokens=np.array([object()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("text")
    for name in ("objects.npz", "single.npy", "text.npz", "nowhere.npz"):
        with pytest.raises(Refused, match=name) as refused:
            loaded.ask("run", inputs=str(tmp_path / name), outputs=str(tmp_path / "out.npz"))
        assert refused.value.kind == "invalid"


def test_a_loss_that_does_not_fit_is_refused(loaded: Parent, model: graphs.LanguageModel, tmp_path: Path) -> None:
    shape = (model.batch, model.tokens, model.vocabulary)
    fitting = str(graphs.save_loss(tmp_path / "loss.onnx", shape))
    other = str(graphs.save_loss(tmp_path / "other.onnx", (model.batch, model.tokens, 99)))
    inputs = np.stack([model.inputs()] * 2)
    weights = np.ones(inputs.shape, np.float32)
    good = {"tokens": inputs, "targets": inputs, "weights": weights}
    (tmp_path / "broken.onnx").write_text("no graph")
    for message, loss_graph, arrays in (
        ("takes logits: float32", other, good),
        ("broken", str(tmp_path / "broken.onnx"), good),
        ("nowhere", str(tmp_path / "nowhere"), good),
        ("lack targets", fitting, {"tokens": inputs, "weights": weights}),
        ("same number of batches", fitting, {**good, "weights": weights[:1]}),
        ("weights is float64", fitting, {**good, "weights": weights.astype(np.float64)}),
        ("is missing", fitting, {"targets": inputs, "weights": weights, "words": inputs}),
    ):
        with pytest.raises(Refused, match=message) as refused:
            loaded.ask("loss", loss_graph=loss_graph, batches=save(tmp_path / "batches.npz", **arrays))
        assert refused.value.kind == "invalid"
    loaded.ask("loss", loss_graph=fitting, batches=save(tmp_path / "batches.npz", **good))


def test_verbs_out_of_order_are_refused(child: Parent, runtime: str, engine_file: Path, onnx_file: Path) -> None:
    for verb in ("measure", "run", "loss"):
        with pytest.raises(Refused, match="no engine is loaded") as refused:
            child.ask(verb, inputs="x.npz", outputs="y.npz", loss_graph="l.onnx", batches="b.npz")
        assert refused.value.kind == "invalid"
    child.ask("load", runtime=runtime, engine=str(engine_file))
    with pytest.raises(Refused, match="close it first"):
        child.ask("load", runtime=runtime, engine=str(engine_file))
    with pytest.raises(Refused, match="close it before building"):
        child.ask("build", runtime=runtime, onnx=str(onnx_file), engine=str(engine_file))


def test_options_that_do_nothing_are_refused(
    loaded: Parent, runtime: str, model: graphs.LanguageModel, tmp_path: Path
) -> None:
    inputs = save(tmp_path / "in.npz", tokens=model.inputs())
    for options in ({"speed": 1}, {"seconds": -1}, {"seconds": "3"}, {"min_runs": 0}, {"min_runs": 1.5}, []):
        with pytest.raises(Refused) as refused:
            loaded.ask("measure", inputs=inputs, options=options)
        assert refused.value.kind == "invalid"
    loaded.ask("close")
    for options in ({"nonsense": 1}, {"threads": 0}, {"threads": "2"}, {"threads": True}):
        with pytest.raises(Refused) as refused:
            loaded.ask("load", runtime=runtime, engine=inputs, options=options)
        assert refused.value.kind == "invalid"


# --- the process ----------------------------------------------------------------------------------------------------


def test_an_unknown_runtime_is_unsupported(child: Parent) -> None:
    for runtime in ("abacus", None, 3):
        with pytest.raises(Refused, match="there is: onnxruntime") as refused:
            child.ask("describe", runtime=runtime)
        assert refused.value.kind == "unsupported"


def test_an_unknown_verb_names_the_known_ones(child: Parent) -> None:
    with pytest.raises(
        Refused, match="build, close, describe, generate, leave, load, loss, measure, measure_prompt, measure_step, run"
    ) as refused:
        child.ask("train")
    assert refused.value.kind == "invalid"


def test_missing_fields_are_named(child: Parent, builds: str) -> None:
    for verb, field in (("build", "onnx"), ("load", "engine")):
        with pytest.raises(Refused, match=f"{verb} needs '{field}'") as refused:
            child.ask(verb, runtime=builds)
        assert refused.value.kind == "invalid"


def test_the_end_of_requests_ends_the_process_well(loaded: Parent) -> None:
    assert loaded.end() == 0


def test_it_needs_neither_torch_nor_the_rest_of_the_project(builds: str) -> None:
    program = (
        "import importlib, json, sys\n"
        "from workers.engine.__main__ import RUNTIMES\n"
        f"importlib.import_module(RUNTIMES[{builds!r}][0])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([ENGINE_PYTHON, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60)
    modules = json.loads(done.stdout)
    assert not [name for name in modules if name.split(".")[0] in ("torch", "onnx", "layers", "service", "layersweep")]
    assert {name for name in modules if name.startswith("workers")} - {"workers"} == {
        name for name in modules if name.startswith("workers.engine")
    }


def test_it_is_python_3_10(tmp_path: Path) -> None:
    """Syntax by the grammar of 3.10, and by a real Python 3.10 where there is one."""
    import ast

    sources = sorted((ROOT / "workers" / "engine").glob("*.py"))
    assert sources
    for source in sources:
        ast.parse(source.read_text(), feature_version=(3, 10))
    python = shutil.which("python3.10")
    if python is None or subprocess.run([python, "-V"], capture_output=True, check=False).returncode:
        pytest.skip("there is no python3.10 here: checked by grammar alone")
    program = "import sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')"
    subprocess.run([python, "-c", program, *map(str, sources)], check=True, timeout=60)
