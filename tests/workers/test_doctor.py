"""What a worker says of a machine, and that it has its GPU for itself."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers import doctor, main
from workers import worker as worker_module
from workers.devices import device
from workers.devices.locks import DeviceBusyError, lock_device, turns_of
from workers.engine.nvml import Gpu
from workers.interruption import DrainedError
from workers.processes.children import Children
from workers.service.client import ServiceClient
from workers.settings import CacheSettings, DeviceSelection, ProcessSettings, StopConditions, WorkerIdentity
from workers.worker import Worker

HOPPER = Gpu("GPU-11111111-aa", "NVIDIA H200", 1 << 37, (9, 0))
ADA = Gpu("GPU-22222222-bb", "NVIDIA RTX 4090", 1 << 34, (8, 9))


def test_the_doctor_names_the_runtimes_of_this_machine() -> None:
    lines, works = doctor.report()
    assert works
    assert any(line.strip().startswith("onnxruntime") and "works, with float32" in line for line in lines)


@pytest.mark.parametrize(
    ("capability", "said"),
    [((9, 0), "TensorRT for RTX does not run"), ((8, 9), "tensorrt-rtx-cu13"), ((6, 1), "TensorRT 8.6 is the newest")],
)
def test_each_generation_has_its_advice(capability: tuple[int, int], said: str) -> None:
    assert said in doctor.advice(capability)


def test_a_device_is_named_by_uuid_number_or_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: [HOPPER, ADA])
    assert device.chosen(None) == HOPPER
    assert device.chosen("cpu") is None
    assert device.chosen("1") == ADA
    assert device.chosen("GPU-2222") == device.chosen("22222222") == ADA
    with pytest.raises(ValueError, match=r"GPU-3 names 0 devices; there is: cpu; 0: GPU-11111111-aa"):
        device.chosen("GPU-3")


def test_a_second_worker_on_a_gpu_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = lock_device("GPU-1", tmp_path)
    with pytest.raises(DeviceBusyError, match="in use by another worker"):
        lock_device("GPU-1", tmp_path)
    lock_device("GPU-2", tmp_path).close()
    first.close()
    lock_device("GPU-1", tmp_path).close()


def test_a_worker_that_may_wait_takes_the_gpu_when_it_is_free_or_stops_when_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LAYERSWEEP_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr(worker_module, "LOCK_POLL_SECONDS", 0.01)
    first = lock_device("GPU-1")
    worker = Worker(
        ServiceClient("http://service"),
        WorkerIdentity("here"),
        children=[Children(threads=1)],
        caches=CacheSettings(tmp_path),
        stops=StopConditions(if_device_is_taken=False),
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.lock_device, "GPU-1")
        while "Waiting until it is free" not in caplog.text:
            assert not waiting.done()
        first.close()
        held = waiting.result()
        told = pool.submit(worker.lock_device, "GPU-1")
        worker.drain()
        with pytest.raises(DrainedError):
            told.result()
    held.close()


def test_a_worker_that_cannot_lock_says_where_and_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAYERSWEEP_LOCK_DIR", str(tmp_path / "file" / "locks"))
    assert main.run("http://service", selection=DeviceSelection("cpu"), processes=ProcessSettings(threads=1)) == 1
    assert f"no lock can be taken in {tmp_path}/file/locks: " in caplog.text
    assert "LAYERSWEEP_LOCK_DIR names another folder" in caplog.text


def test_what_is_made_for_locks_is_for_every_user_of_the_machine(tmp_path: Path) -> None:
    turns_of("cpu-1", tmp_path / "locks")
    lock_device("GPU-1", tmp_path / "locks").close()
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "locks").iterdir()} == {0o666}
