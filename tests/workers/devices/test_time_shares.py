"""How busy a device was: by the driver's count where there is one, else by the attempts at work."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import dataclass, field
from typing import Any

import pytest

from workers.devices import time_shares
from workers.devices.time_shares import WINDOW_SECONDS, DeviceMeter, DeviceTime, DeviceUse
from workers.engine import nvml

UUID = "GPU-1"


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_driver_it_is_the_time_in_which_an_attempt_was_at_work() -> None:
    clock = Clock()
    devices = {name: DeviceTime(clock) for name in ("a", "b")}
    meter = DeviceMeter(devices, None, clock)
    assert meter.use() is None
    share = devices["a"].share()
    clock.now = 30.0
    share.pause()
    clock.now = 40.0
    meter.sample()
    assert meter.use() == {"busy_share": 0.375, "over_seconds": 40.0, "source": "attempts"}


def test_the_driver_is_believed_and_what_is_long_ago_is_forgotten() -> None:
    clock, counted = Clock(), iter([1.0, None, 0.25])
    meter = DeviceMeter({UUID: DeviceTime(clock)}, lambda: next(counted), clock)
    for until in (30.0, 40.0, 60.0):
        clock.now = until
        meter.sample()
    # Of ten seconds it said nothing.
    assert meter.use() == {"busy_share": 0.7, "over_seconds": 50.0, "source": "nvml"}
    clock.now = 35.0 + WINDOW_SECONDS
    counted = iter([0.5])
    meter.sample()
    assert meter.use() == {"busy_share": pytest.approx(0.4916, abs=1e-4), "over_seconds": 595.0, "source": "nvml"}


def test_of_a_driver_that_says_nothing_any_more_nothing_is_known_in_the_end() -> None:
    clock, counted = Clock(), iter([0.5, None])
    meter = DeviceMeter({UUID: DeviceTime(clock)}, lambda: next(counted), clock)
    for until in (30.0, 40.0 + WINDOW_SECONDS):
        clock.now = until
        meter.sample()
    assert meter.use() is None


def test_it_is_told_while_a_worker_works() -> None:
    told: list[DeviceUse] = []
    heard = threading.Event()

    def tell(use: DeviceUse) -> None:
        told.append(use)
        heard.set()

    device = DeviceTime()
    device.share()
    with time_shares.metered({"cpu-1": device}, tell, 0.01):
        assert heard.wait(60)
    assert (told[0]["source"], told[0]["busy_share"]) == ("attempts", 1.0)


NOT_SUPPORTED, NOT_FOUND = 3, 6
ALONE = "GPU-alone"


class _NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


@dataclass
class _Value:
    uiVal: int  # noqa: N815 - NVML's


@dataclass
class _Sample:
    timeStamp: int  # noqa: N815 - NVML's
    sampleValue: _Value  # noqa: N815 - NVML's


@dataclass
class Driver:
    """A driver with the samples that a test gives it: their times, and per cent."""

    samples: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    alone: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Those of the device `ALONE`."""
    counts: bool = True

    def module(self) -> types.ModuleType:
        library: Any = types.ModuleType("pynvml")
        library.NVMLError = _NvmlError
        library.NVML_GPU_UTILIZATION_SAMPLES, library.NVML_ERROR_NOT_FOUND = 1, NOT_FOUND
        library.nvmlInit = library.nvmlShutdown = lambda: None
        library.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
        library.nvmlDeviceGetSamples = self._get
        return library

    def _get(self, handle: str, kind: int, after: int) -> tuple[int, list[_Sample]]:
        found = [
            _Sample(at, _Value(share)) for at, share in (self.alone if handle == ALONE else self.samples) if at > after
        ]
        if not self.counts or not found:
            raise _NvmlError(NOT_FOUND if self.counts else NOT_SUPPORTED)
        return 1, found


@pytest.mark.parametrize("before", [[(100, 90)], []], ids=["it has counted before", "nothing is counted yet"])
def test_samples_of_the_driver_count_once(monkeypatch: pytest.MonkeyPatch, before: list[tuple[int, int]]) -> None:
    driver = Driver(before)
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    with nvml.utilization([UUID]) as utilization:
        assert utilization is not None
        assert utilization() is None, "what was before does not count"
        driver.samples += [(200, 0), (300, 50)]
        assert utilization() == 0.25
        driver.samples += [(400, 100)]
        assert utilization() == 1.0
        assert utilization() is None


def test_each_device_counts_alike_however_often_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver([(100, 0)], alone=[(100, 0)])
    monkeypatch.setitem(sys.modules, "pynvml", driver.module())
    with nvml.utilization([UUID, ALONE]) as utilization:
        assert utilization is not None
        driver.samples += [(200, 100), (300, 100), (400, 100)]
        driver.alone += [(250, 0)]
        assert utilization() == 0.5


def test_a_device_that_the_driver_does_not_count_has_no_utilization(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(counts=False).module())
    with nvml.utilization([UUID]) as utilization:
        assert utilization is None
