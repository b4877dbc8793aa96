"""What a worker says of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.devices import device
from workers.engine.nvml import Gpu
from workers.settings import DeviceSelection


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


GPUS = [Gpu(f"GPU-{name}", "NVIDIA H200", 141 << 30, (9, 0)) for name in ("b", "a")]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: GPUS)
    monkeypatch.setattr(device, "link", lambda uuids: "NVLink")


@pytest.mark.usefixtures("two_gpus")
def test_several_gpus_are_one_device_of_another_name() -> None:
    choice = device.choose(DeviceSelection(group_names=("0", "1")), 4)
    assert choice.registered["uuid"] == "GPU-a+GPU-b"
    assert choice.registered["model"] == "2 x NVIDIA H200, NVLink"
    assert (choice.ranks, choice.link, choice.lock_names) == (2, "NVLink", ("GPU-a", "GPU-b"))
    assert [choice.rank_devices(gpu) for gpu in choice.gpus] == [("GPU-a", "GPU-b"), ("GPU-b", "GPU-a")]


@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_shares_nothing() -> None:
    choice = device.choose(DeviceSelection("1"), 4)
    assert (choice.registered["uuid"], choice.ranks, choice.rank_devices(choice.gpus[0])) == ("GPU-a", 1, ())
    assert device.choose(DeviceSelection(group_names=("1",)), 4) == choice


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("names", "ranks", "said"),
    [(("0", "0"), None, "not 2 different"), (("0", "1"), 4, "4 are to share"), ((), 2, "Name them by --devices")],
)
def test_devices_that_make_no_group_are_refused(names: tuple[str, ...], ranks: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        device.choose(DeviceSelection(None, names, ranks), 4)


def test_gpus_of_two_models_share_nothing() -> None:
    other = Gpu("GPU-c", "NVIDIA H100", 80 << 30, (9, 0))
    with pytest.raises(ValueError, match="of one model; these are NVIDIA H100 and NVIDIA H200"):
        device.group([*GPUS, other], "PCIe")


def test_a_worker_has_no_more_gpus_than_the_service_can_name() -> None:
    with pytest.raises(ValueError, match="at most 3"):
        device.group([*GPUS, *GPUS], "NVLink")


def test_processes_of_the_cpu_share_engines() -> None:
    choice = device.choose(DeviceSelection("cpu", ranks=2), 1)
    assert choice.registered["model"].endswith(", 1 thread, 2 processes")
    assert choice.rank_devices(None) == ("", "")
    assert device.choose(DeviceSelection("cpu", ranks=1), 1) == device.choose(DeviceSelection("cpu"), 1)
