"""The walk over every layer and every enumerated value through TensorRT for RTX's real builder: it needs no GPU."""

from __future__ import annotations

import pytest

from benchmarks.conformance.walk import Walker, walk
from layers.capabilities import unsupported
from tests.layers.combinations import combinations, mixtures

pytest.importorskip("tensorrt_rtx")

PRECISIONS = ("float32", "float16", "bfloat16")
OPTIONS = {"optimization_level": 0, "compute_capability": 89}


@pytest.fixture(scope="module")
def walker() -> Walker:
    return Walker("tensorrt_rtx", OPTIONS)


@pytest.mark.parametrize("precision", ["float32", "float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_few_of_each_precision_build(walker: Walker, precision: str) -> None:
    offset = PRECISIONS.index(precision)
    for combination in combinations()[offset * 5 :: 37]:
        result = walker.walk(combination, precision)
        assert result["outcome"] in ("built", "right"), result


def test_a_precision_that_the_device_lacks_never_reaches_the_builder(walker: Walker) -> None:
    """Turing has no bfloat16: the check says so, with its source."""
    old = {**walker.capabilities, "dtypes": ["float32", "float16"], "lacks": {"dtype bfloat16": "needs 8.0 (a table)"}}
    model = combinations()[0].completed("bfloat16")
    assert (unsupported(model, old) or "").endswith(
        "does not run bfloat16 (it runs float32, float16): needs 8.0 (a table)"
    )


def test_a_few_mixtures_of_precisions_build(walker: Walker) -> None:
    for combination in mixtures()[2::24]:
        result = walker.walk(combination, "float32")
        assert result["outcome"] in ("built", "right"), result


@pytest.mark.slow
def test_every_mixture_of_precisions_builds() -> None:
    results = walk("tensorrt_rtx", [(each, "float32") for each in mixtures()], OPTIONS, processes=2)
    assert [result for result in results if result["outcome"] not in ("built", "right")] == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_combination_builds(precision: str) -> None:
    results = walk("tensorrt_rtx", [(each, precision) for each in combinations()], OPTIONS, processes=2)
    assert [result for result in results if result["outcome"] not in ("built", "right")] == []
