"""What a worker says of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import device


def test_the_number_of_threads_is_part_of_the_device() -> None:
    one, two = device.cpu(1), device.cpu(2)
    assert str(one["model"]).endswith(", 1 thread")
    assert str(two["model"]).endswith(", 2 threads")
    assert one["uuid"] == two["uuid"]
    assert int(one["memory_bytes"]) > 2**28


def test_the_machine_s_own_id_stays_at_home() -> None:
    ids = [path.read_text().strip() for path in device.MACHINE_IDS if path.is_file()]
    assert not any(identity and identity in str(device.cpu(1)["uuid"]) for identity in ids)


def test_threads_follow_the_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device.default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert device.default_threads() >= 1


def test_a_control_group_s_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    assert device.default_threads() == 1
    assert device.memory_bytes() == 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert device.memory_bytes() > 2**28


def test_versions_name_what_a_result_depends_on() -> None:
    assert {"layersweep", "python", "torch", "numpy", "onnx"} <= set(device.versions())
