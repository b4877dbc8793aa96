"""What layers/targets.py declares of the runtimes is what they say of themselves, and what the check refuses."""

from __future__ import annotations

from typing import Any

import pytest

from layers import targets
from layers.capabilities import lacking_option, unsupported
from layers.declarations import dtypes, quantization
from layers.declarations.inference.parameters import BUILD_OPTIONS
from layers.declarations.model import APPLIES, DECLARATIONS
from layers.declarations.tensor_parallel import SHARED
from layers.wanted_target import RUNTIMES
from tests.layers.combinations import combinations
from workers.engine.onnxruntime.engine import OnnxRuntimeEngine
from workers.engine.parallel.rank_engine import RANK_ENGINES
from workers.engine.tensorrt import support
from workers.engine.tensorrt.engine import TensorRtEngine

VERSIONS = {"tensorrt": ("8.6.0", "9.3.0", "10.0.1", "11.0.0"), "tensorrt_rtx": ("1.4.0", "1.7.1")}
DEVICES = ((5, 0), (5, 3), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0), None)


def holds(needs: targets.Needs | str, version: str, capability: tuple[int, int] | None) -> bool:
    major, minor = (int(part) for part in version.split(".")[:2])
    return not isinstance(needs, str) and needs.met((major, minor), capability)


@pytest.mark.parametrize("capability", DEVICES)
@pytest.mark.parametrize(
    ("runtime", "version"), [(runtime, each) for runtime, versions in VERSIONS.items() for each in versions]
)
def test_dtypes_of_tensorrt(runtime: str, version: str, capability: tuple[int, int] | None) -> None:
    limits = support.limits(runtime, version, capability)
    declared = targets.DTYPES[runtime]
    assert set(limits.dtypes) == {name for name, needs in declared.items() if holds(needs, version, capability)}
    quantizations = targets.QUANTIZATIONS[runtime]
    able = {name for name, needs in quantizations.items() if holds(needs, version, capability)}
    assert set(limits.quantizations) == able
    assert {f"quantization {name}" for name in set(quantizations) - able} <= limits.lacks.keys()
    assert (quantization.IN_HALF not in limits.lacks) is holds(targets.QUANTIZED_HALF[runtime], version, capability)
    needs = {name: targets.BUILD_OPTION_NEEDS.get(name, {}).get(runtime, targets.Needs()) for name in BUILD_OPTIONS}
    assert set(limits.build_options) == {name for name in needs if holds(needs[name], version, capability)}
    mixes = holds(targets.MIXED[runtime], version, capability)
    assert (dtypes.MIXED not in limits.lacks) is mixes


def test_onnxruntime() -> None:
    described = OnnxRuntimeEngine().describe()
    declared = targets.DTYPES["onnxruntime"]
    assert described["dtypes"] == [name for name, needs in declared.items() if not isinstance(needs, str)]
    assert {name for name in described["lacks"] if name.startswith("dtype ")} == {
        f"dtype {name}" for name, needs in declared.items() if isinstance(needs, str)
    }
    quantizations = targets.QUANTIZATIONS["onnxruntime"]
    assert described["quantizations"] == [name for name, needs in quantizations.items() if not isinstance(needs, str)]
    assert "quantization fp8" in described["lacks"]
    assert described["build_options"] == []
    assert "onnxruntime" not in targets.WITH_BUILD_OPTIONS
    # Every combination of the walk runs there in float32 (tests/layers/export/test_combinations.py): none is refused.
    capabilities: dict[str, Any] = {**described}
    assert [each.id for each in combinations() if unsupported(each.completed(), capabilities)] == []


def test_build_options() -> None:
    assert set(BUILD_OPTIONS) <= TensorRtEngine.build_options.keys()
    rtx = pytest.importorskip("workers.engine.tensorrt.rtx")
    pytest.importorskip("tensorrt_rtx")
    described = rtx.TensorRtRtxEngine().describe()
    for name in BUILD_OPTIONS:
        assert lacking_option({name: 3}, described) is None
        assert targets.support(f"inference.{name}")["tensorrt_rtx"].supported
        assert not targets.support(f"inference.{name}")["onnxruntime"].supported


def test_every_runtime_and_every_parameter_is_declared() -> None:
    assert set(targets.RUNTIMES) == set(RUNTIMES) == set(targets.DTYPES) == set(targets.MIXED)
    assert set(targets.RUNTIMES) == set(targets.QUANTIZATIONS) == set(targets.QUANTIZED_HALF)
    declared = {quantization.NONE, *targets.QUANTIZATIONS["tensorrt"]}
    assert declared == set(DECLARATIONS["quantization"].choices)
    assert all(list(needs) == list(dtypes.BYTES) for needs in targets.DTYPES.values())
    for path in DECLARATIONS:
        assert list(targets.support(path)) == list(targets.RUNTIMES)
        assert targets.in_words(path)


def test_what_devices_share_is_declared_as_the_check_has_it() -> None:
    able = {
        "runtime": "tensorrt",
        "version": "10.0",
        "device_model": "eight GPUs",
        "opset": 20,
        "dtypes": ["float32"],
        "device_memory_bytes": 10**9,
        "devices": 8,
    }
    model = next(each for each in combinations() if each.values["kind"] == "mlp").completed()
    assert unsupported(model, able) is None
    assert unsupported({**model, "tp_size": 8}, able) is None
    assert unsupported({**model, "tp_size": 2}, {**able, "devices": 1}) is not None
    assert set(targets.SHARING_RUNTIMES) == set(RANK_ENGINES)
    for path in ("tp_size", *(each for each, condition in APPLIES.items() if condition == SHARED)):
        for runtime, declared in targets.support(path).items():
            assert declared.supported is (runtime in RANK_ENGINES or path == "tp_size")
    assert targets.in_words("mlp.hidden_act") == "all"
