"""Which trials have interchangeable results."""

from __future__ import annotations

from typing import Any

import pytest

from service.leases import reuse_keys
from service.leases.reuse_keys import reuse_key


@pytest.mark.parametrize(
    "change",
    [
        {"project": "other"},
        {"configuration": {"model": {"hidden_size": 64}}},
        {"configuration": {"model": {"hidden_size": 32}, "training": {"seed": 1}}},
        {"dataset_sha256": "b"},
        {"target_key": "onnxruntime 1.33 on CPU"},
        {"results_version": 2},
    ],
)
def test_the_key_tells_apart_what_would_be_measured_differently(change: dict[str, Any]) -> None:
    same: dict[str, Any] = {
        "project": "default",
        "configuration": {"model": {"hidden_size": 32}},
        "dataset_sha256": "a",
        "target_key": "onnxruntime 1.32 on CPU",
        "results_version": 1,
    }
    assert reuse_key(**same) == reuse_key(**same)
    assert reuse_key(**same | change) != reuse_key(**same)


def test_the_key_depends_on_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {"project": "p", "configuration": {}, "dataset_sha256": None, "target_key": "t"} | {
        "results_version": 1
    }
    before = reuse_key(**facts)
    monkeypatch.setattr(reuse_keys, "__version__", "999")
    assert reuse_key(**facts) != before
