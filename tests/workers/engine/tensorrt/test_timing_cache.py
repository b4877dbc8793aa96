"""The timing cache of TensorRT 10 and later, where neither is: its file is real, and so are TensorRT for RTX's objects,
which have the same methods and find nothing out. What a library answers is faked where the test says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workers import graphs
from workers.engine.tensorrt import cuda, support
from workers.engine.tensorrt.log import Complaints
from workers.engine.tensorrt.plan_file import write_plan
from workers.engine.tensorrt.timing_cache import TimingFile

ORIGIN = {"runtime": "tensorrt", "version": "10.13.2.6", "device": "GPU-1"}


@dataclass
class FakeCache:
    content: bytes

    def serialize(self) -> bytes:
        return self.content


@dataclass
class FakeConfig:
    """A builder's configuration as far as a timing cache goes: `takes` says which cache it accepts."""

    complaints: Complaints = field(default_factory=Complaints)
    takes: bool = True
    complains: bool = False
    attached: list[bytes] = field(default_factory=list)

    def create_timing_cache(self, known: bytes) -> FakeCache:
        if known and self.complains:
            self.complaints.errors.append("the cache is of another version")
        return FakeCache(known)

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content and not self.takes:
            return False
        self.attached.append(cache.content)
        return True


@pytest.fixture
def timings(tmp_path: Path) -> TimingFile:
    return TimingFile(tmp_path / "timings", ORIGIN)


def attached(timings: TimingFile, **answers: bool) -> bytes:
    """What a build begins with."""
    config = FakeConfig(**answers)
    cache = timings.attach(config, config.complaints)
    assert config.complaints.errors == []
    assert config.attached[-1] == cache.content
    return cache.content


def test_a_build_begins_with_what_the_one_before_found_out(timings: TimingFile) -> None:
    assert attached(timings) == b""
    timings.keep(FakeCache(b"found out"))
    assert [path.name for path in timings.folder.iterdir()] == ["tensorrt-10.13.2.6-GPU-1.timings"]
    assert attached(timings) == b"found out"


def test_a_build_that_dies_over_it_leaves_none(timings: TimingFile) -> None:
    timings.keep(FakeCache(b"found out"))
    attached(timings)
    assert attached(timings) == b""


@pytest.mark.parametrize("name", ["runtime", "version", "device"])
def test_each_version_and_device_has_its_own(timings: TimingFile, name: str) -> None:
    timings.keep(FakeCache(b"found out"))
    assert attached(TimingFile(timings.folder, {**ORIGIN, name: "other"})) == b""
    assert attached(timings) == b"found out"


def test_a_file_of_another_device_is_ignored_and_told(timings: TimingFile, capsys: pytest.CaptureFixture[str]) -> None:
    timings.folder.mkdir()
    write_plan(timings.path, memoryview(b"found out"), {**ORIGIN, "device": "GPU-2"})
    assert attached(timings) == b""
    told = capsys.readouterr().err
    assert "ignored, it is of {" in told
    assert "'device': 'GPU-2'" in told


def test_a_damaged_file_is_ignored_and_told(timings: TimingFile, capsys: pytest.CaptureFixture[str]) -> None:
    timings.keep(FakeCache(b"found out"))
    timings.path.write_bytes(timings.path.read_bytes().replace(b"found", b"fount"))
    assert attached(timings) == b""
    assert f"{timings.path}: ignored, it is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [{"takes": False}, {"complains": True}])
def test_what_the_library_does_not_take_costs_no_build(
    timings: TimingFile, capsys: pytest.CaptureFixture[str], answers: dict[str, bool]
) -> None:
    timings.keep(FakeCache(b"found out"))
    assert attached(timings, **answers) == b""
    assert "ignored, the library does not take it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_costs_no_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "timings").write_text("a file")
    timings = TimingFile(tmp_path / "timings", ORIGIN)
    assert attached(timings) == b""
    timings.keep(FakeCache(b"found out"))
    assert "not kept: " in capsys.readouterr().err


@pytest.mark.skipif(cuda.device_count() > 0, reason="there is a GPU: what is built for another is not weighed there")
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_real_builder_takes_it_and_a_failed_build_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT for RTX, made to keep timings: without a GPU its library logs errors when it reads them back."""
    pytest.importorskip("tensorrt_rtx")
    from workers.engine.tensorrt.rtx import TensorRtRtxEngine

    monkeypatch.setattr(support, "no_timing_cache", lambda runtime, version: None)
    engine: Any = TensorRtRtxEngine()
    engine._opened = SimpleNamespace(uuid="GPU-1")
    engine.keep_timings(tmp_path / "timings")
    onnx = graphs.LanguageModel.make().save(tmp_path / "model.onnx")
    for _ in range(2):
        engine.build(onnx, tmp_path / "model.engine", {"compute_capability": 89})
        (kept,) = (tmp_path / "timings").iterdir()
    assert kept.name == f"tensorrt_rtx-{engine.version}-GPU-1.timings"
    with pytest.raises(Exception, match="exceeds the maximum supported element count"):
        engine.build(graphs.beyond_memory(tmp_path / "beyond.onnx"), tmp_path / "beyond.engine", {})
    assert list((tmp_path / "timings").iterdir()) == []
