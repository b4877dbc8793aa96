"""TensorRT's target where no GPU is: what it builds (TensorRT for RTX needs none), refuses and says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from layers.completion import complete
from layers.export.onnx_export import cast_copy, export
from layers.export.quantization import quantize
from layers.modules.model import build as build_module
from tests.workers import graphs
from tests.workers.engine_parent import Parent, Refused
from workers.engine import nvml
from workers.engine.protocol import RequestError
from workers.engine.tensorrt import cuda, support
from workers.engine.tensorrt.log import Complaints
from workers.engine.tensorrt.plan_file import PlanFile, is_plan_file, read_plan, write_plan
from workers.engine.tensorrt.weight_streaming import stream_weights


@pytest.fixture
def rtx() -> Iterator[Parent]:
    pytest.importorskip("tensorrt_rtx")
    with Parent() as parent:
        yield parent


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    return graphs.LanguageModel.make().save(tmp_path / "model.onnx")


def build(parent: Parent, onnx: Path, **options: int) -> dict[str, Any]:
    engine = onnx.with_suffix(".engine")
    return parent.ask("build", runtime="tensorrt_rtx", onnx=str(onnx), engine=str(engine), options=options)


def quantized(path: Path, scheme: str, dtype: str) -> Path:
    """A feed-forward layer in 8 bits."""
    hidden_BTD = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    module = cast_copy(build_module(complete("probe", {"kind": "mlp", "hidden_size": 32}, {})), dtype)
    export(module, (hidden_BTD,), path, opset=20, input_names=["hidden_states"], output_names=["output"])
    quantize(path, scheme, {"hidden_states": hidden_BTD.numpy()[None]})
    return path


def test_it_builds_for_a_compute_capability_without_a_gpu(rtx: Parent, onnx_file: Path) -> None:
    built = build(rtx, onnx_file, compute_capability=89)
    about = json.loads(zipfile.ZipFile(onnx_file.with_suffix(".engine")).read("about.json"))
    assert about["built_for"] == "compute capability 8.9"
    defaults = {"optimization_level": 3, "workspace_mib": 0, "weights_mib": 0, "tf32": 0}
    assert about["options"] == {**defaults, "compute_capability": 89}
    assert built["weights_bytes"] == about["weights_bytes"]


def test_it_builds_an_engine_whose_weights_are_streamed(rtx: Parent, onnx_file: Path) -> None:
    assert build(rtx, onnx_file, compute_capability=89, weights_mib=1)["engine_bytes"] > 0
    assert read_plan(onnx_file.with_suffix(".engine")).about["options"]["weights_mib"] == 1


@dataclass
class FakeEngine:
    """As much of an engine of TensorRT 10 as says which of its weights stay on the device."""

    streamable_weights_size: int = 5 << 20
    most: int = 1 << 30
    budget: int = -1

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self.budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, wanted: int) -> None:
        self.budget = min(wanted, self.most)


@pytest.mark.parametrize(
    ("options", "budget"), [({"weights_mib": 2}, 2 << 20), ({"weights_mib": 9}, 5 << 20), ({}, -1)]
)
def test_as_many_weights_stay_on_the_device_as_the_plan_says(options: dict[str, int], budget: int) -> None:
    """The runtime is faked: no engine that streams its weights can be loaded without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    from workers.engine.tensorrt.rtx import TensorRtRtxEngine

    loaded, runtime = FakeEngine(), TensorRtRtxEngine()
    reader = SimpleNamespace(deserialize_cuda_engine=lambda content: loaded)
    runtime._trt = SimpleNamespace(Runtime=lambda log: reader)
    runtime._deserialize(PlanFile(b"", {"options": options}))
    assert loaded.budget == budget


def test_a_library_that_keeps_other_weights_on_the_device_is_told() -> None:
    with pytest.raises(RequestError, match=r"2,097,152 bytes .* were to stay .*; the library keeps 1,048,576 there"):
        stream_weights(FakeEngine(most=1 << 20), {"weights_mib": 2})


@pytest.mark.skipif(cuda.device_count() > 0, reason="there is a GPU")
def test_it_refuses_to_run_without_a_gpu_and_says_so(rtx: Parent, onnx_file: Path) -> None:
    build(rtx, onnx_file)
    described = rtx.ask("describe", runtime="tensorrt_rtx")
    assert described["build_only"]
    assert "no NVIDIA GPU" in described["lacks"]["execution"]
    with pytest.raises(Refused, match="no NVIDIA GPU") as refused:
        rtx.ask("load", runtime="tensorrt_rtx", engine=str(onnx_file.with_suffix(".engine")))
    assert refused.value.kind == "unsupported"


def test_a_compute_capability_that_it_does_not_know_is_refused_with_those_it_knows(
    rtx: Parent, onnx_file: Path
) -> None:
    with pytest.raises(Refused, match=r"builds for compute capability .*89.*not 90") as refused:
        build(rtx, onnx_file, compute_capability=90)
    assert refused.value.kind == "unsupported"


def test_an_error_that_the_library_logs_fails_the_build(rtx: Parent, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="exceeds the maximum supported element count") as refused:
        build(rtx, graphs.beyond_memory(tmp_path / "beyond.onnx"))
    assert refused.value.kind == "build"


def test_tensorrt_that_is_not_installed_is_named(rtx: Parent) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(Refused, match="cannot use tensorrt: No module named 'tensorrt'") as refused:
            rtx.ask("describe", runtime="tensorrt")
        assert refused.value.kind == "unsupported"


# --- the plan file --------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_with_what_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_plan(path, memoryview(b"a plan"), {"version": "11.0"})
    assert is_plan_file(path)
    plan = read_plan(path)
    assert (plan.content, plan.about) == (b"a plan", {"version": "11.0"})


def test_every_damage_to_a_plan_is_found_before_the_library_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_plan(path, memoryview(bytes(range(256)) * 16), {})
    whole = path.read_bytes()
    at = whole.index(bytes(range(256)))
    damaged = [whole[:-1], whole[: len(whole) // 2], b"", whole[:at] + b"\xff" + whole[at + 1 :], b"no engine"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"model\.engine is no engine file") as failed:
            read_plan(path)
        assert failed.value.kind == "invalid"


def test_a_full_disk_is_a_reason() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(RequestError, match=r"cannot be written: .*No space left"):
        write_plan(full, memoryview(bytes(1 << 20)), {})


# --- limits and messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "version", "capability", "dtypes", "runs"),
    [
        ("tensorrt", "8.6.0", (9, 0), ("float32", "tf32", "float16"), True),
        ("tensorrt", "10.13.2.6", (9, 0), ("float32", "tf32", "float16", "bfloat16"), True),
        ("tensorrt", "10.13.2.6", (7, 5), ("float32", "float16"), True),
        ("tensorrt", "11.0.0.1", (12, 0), ("float32", "tf32", "float16", "bfloat16"), True),
        ("tensorrt", "8.5.3", (8, 6), ("float32", "tf32", "float16"), False),
        ("tensorrt_rtx", "1.7.1", (8, 9), ("float32", "tf32", "float16", "bfloat16"), True),
        ("tensorrt_rtx", "1.7.1", (7, 5), ("float16",), True),
        ("tensorrt_rtx", "1.7.1", (9, 0), ("float32", "tf32", "float16", "bfloat16"), False),
        ("tensorrt_rtx", "1.7.1", None, ("float32", "tf32", "float16", "bfloat16"), False),
    ],
)
def test_limits(
    runtime: str, version: str, capability: tuple[int, int] | None, dtypes: tuple[str, ...], runs: bool
) -> None:
    limits = support.limits(runtime, version, capability)
    assert (limits.dtypes, limits.runs) == (dtypes, runs)
    missing = {"float32", "tf32", "float16", "bfloat16"} - set(dtypes)
    mixes = runtime == "tensorrt_rtx" or not version.startswith("8.")
    others = (set() if runs else {"execution"}) | (set() if mixes else {"mixed precision"})
    others |= set() if runtime == "tensorrt" and not version.startswith("8.") else {"timing cache"}
    others |= set() if mixes else {"weight streaming"}
    of_dtypes = {name for name in limits.lacks if "quantization" not in name}
    assert of_dtypes == {f"dtype {name}" for name in missing} | others
    assert all("needs" in why or not name.startswith("dtype") for name, why in limits.lacks.items())


@pytest.mark.parametrize(
    ("runtime", "version", "capability", "quantizations", "half"),
    [
        ("tensorrt", "8.6.0", (9, 0), ("int8",), False),
        ("tensorrt", "10.13.2.6", (9, 0), ("int8", "fp8"), True),
        ("tensorrt", "10.13.2.6", (8, 0), ("int8",), True),
        ("tensorrt_rtx", "1.7.1", (8, 9), ("int8", "fp8"), True),
        ("tensorrt_rtx", "1.7.1", (8, 6), ("int8",), True),
        ("tensorrt_rtx", "1.7.1", None, ("int8", "fp8"), True),
    ],
)
def test_limits_of_quantization(
    runtime: str, version: str, capability: tuple[int, int] | None, quantizations: tuple[str, ...], half: bool
) -> None:
    limits = support.limits(runtime, version, capability)
    assert limits.quantizations == quantizations
    assert ("quantization of float16" not in limits.lacks) is half
    assert ("fp8" in quantizations) or "needs" in limits.lacks["quantization fp8"]


def test_each_version_is_given_an_opset_that_its_parser_reads() -> None:
    assert [support.opset("tensorrt", version) for version in ("8.6.0", "10.0.1", "11.2")] == [17, 20, 20]


def test_memory_that_was_short_is_told_apart_from_other_failures() -> None:
    short = Complaints(["Requested amount of GPU memory (1 bytes) could not be allocated."])
    assert short.failure("build", "m.onnx").kind == "out_of_memory"
    other = Complaints(["Error Code 4: API Usage Error"])
    assert other.failure("build", "m.onnx").kind == "build"


@pytest.mark.skipif(cuda.device_count() > 0, reason="there is a GPU")
def test_a_machine_without_a_gpu_has_none() -> None:
    assert nvml.gpus() == []
    assert nvml.driver_version() is None
    assert "nvml" in nvml.read("GPU-0")
    with pytest.raises(RequestError, match="no NVIDIA GPU") as failed:
        cuda.Device()
    assert failed.value.kind == "unsupported"


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_quantized_graphs_build(rtx: Parent, tmp_path: Path, scheme: str, dtype: str) -> None:
    path = quantized(tmp_path / "model.onnx", scheme, dtype)
    assert build(rtx, path, compute_capability=89, optimization_level=0)["engine_bytes"] > 0


def test_fp8_for_a_device_without_it_is_refused(rtx: Parent, tmp_path: Path) -> None:
    """By the builder too, should a table say otherwise."""
    with pytest.raises(Refused, match="fp8"):
        build(rtx, quantized(tmp_path / "model.onnx", "fp8", "float32"), compute_capability=75)
