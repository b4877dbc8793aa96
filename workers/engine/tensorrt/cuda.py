"""The CUDA driver as engines use it: one device, one stream that the host spins on, buffers, events, captured graphs.

Through `cuda-bindings`; importing this module needs no GPU. The device is the first that the process can see: the
worker names it by UUID in CUDA_VISIBLE_DEVICES. Its primary context is used, which is TensorRT's too.
"""

from __future__ import annotations

import importlib
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from ..protocol import RequestError


class CudaError(Exception):
    """A call of the driver that failed. `name` is the driver's, CUDA_ERROR_OUT_OF_MEMORY for example."""

    def __init__(self, call: str, name: str) -> None:
        super().__init__(f"{call}: {name}")
        self.name = name

    @property
    def out_of_memory(self) -> bool:
        return "OUT_OF_MEMORY" in self.name


@cache
def driver() -> Any:
    """The driver's bindings. Raises ImportError with what to install."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as problem:
        raise ImportError(f"the CUDA bindings are missing ({problem}): install cuda-bindings") from problem


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the driver; its result, a tuple of results, or None. Raises CudaError."""
    status, *results = getattr(driver(), name)(*arguments)
    if int(status) != 0:
        raise CudaError(name, getattr(status, "name", str(status)))
    return None if not results else results[0] if len(results) == 1 else tuple(results)


def device_count() -> int:
    """GPUs that this process can see; 0 where there is no driver."""
    try:
        call("cuInit", 0)
        return int(call("cuDeviceGetCount"))
    except (CudaError, ImportError, RuntimeError, OSError):
        # Without libcuda the bindings raise a RuntimeError of their own at the first call.
        return 0


class Device:
    """The first visible GPU with its primary context current. Raises RequestError("unsupported") where there is none.

    Waiting spins: a thread that sleeps until an interrupt adds its wake-up to what it times.
    """

    def __init__(self) -> None:
        if device_count() == 0:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            seen = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
            raise RequestError("unsupported", f"there is no NVIDIA GPU with a working driver here{seen}")
        bindings = driver()
        self._device = call("cuDeviceGet", 0)
        try:
            call("cuDevicePrimaryCtxSetFlags", self._device, int(bindings.CUctx_flags.CU_CTX_SCHED_SPIN))
            call("cuCtxSetCurrent", call("cuDevicePrimaryCtxRetain", self._device))
        except CudaError as problem:
            kind = "out_of_memory" if problem.out_of_memory else "internal"
            raise RequestError(kind, f"the GPU gives no context: {problem}") from problem

    def reset(self) -> None:
        """Give back all that the process has on the device. Nothing of it can be used any more. Raises CudaError."""
        call("cuDevicePrimaryCtxReset", self._device)

    @property
    def name(self) -> str:
        text: bytes = call("cuDeviceGetName", 128, self._device)
        return text.split(b"\0")[0].decode()

    @property
    def uuid(self) -> str:
        """As NVML writes it: GPU-<uuid>."""
        return f"GPU-{uuid.UUID(bytes=bytes(call('cuDeviceGetUuid', self._device).bytes))}"

    @property
    def compute_capability(self) -> tuple[int, int]:
        attribute = driver().CUdevice_attribute
        major = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._device)
        minor = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._device)
        return int(major), int(minor)

    @property
    def memory_bytes(self) -> int:
        return int(call("cuDeviceTotalMem", self._device))

    def memory_in_use(self) -> int:
        """Bytes in use on the device, by every process."""
        free, total = call("cuMemGetInfo")
        return int(total) - int(free)


class Buffer:
    """Memory on the device, freed when nothing refers to it any more. Raises CudaError."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._pointer: Any = call("cuMemAlloc", max(1, nbytes))

    @property
    def address(self) -> int:
        return int(self._pointer)

    def write(self, array: np.ndarray, stream: Stream) -> None:
        """Copy the array's bytes here; done when this returns."""
        if array.nbytes:
            call("cuMemcpyHtoDAsync", self._pointer, array.ctypes.data, array.nbytes, stream.handle)
            stream.wait()

    def read(self, array: np.ndarray, stream: Stream) -> None:
        """Copy this memory's bytes into the array; done when this returns."""
        if array.nbytes:
            call("cuMemcpyDtoHAsync", array.ctypes.data, self._pointer, array.nbytes, stream.handle)
            stream.wait()

    def free(self) -> None:
        if self._pointer is not None:
            call("cuMemFree", self._pointer)
        self._pointer = None


class BufferPart(Buffer):
    """Some of another buffer's memory, which that one frees."""

    def __init__(self, whole: Buffer, offset: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._pointer = whole.address + offset

    def free(self) -> None:
        self._pointer = None


@dataclass(frozen=True)
class StridedCopy:
    """`count` pieces of `width` bytes, copied from one place of the device to another; pitches are from the beginning
    of one piece to that of the next. The memory is somebody else's."""

    source: int
    source_pitch: int
    target: int
    target_pitch: int
    width: int
    count: int

    def joined(self, following: StridedCopy) -> StridedCopy | None:
        """Both as one copy; None where `following` does not go on where this one ends."""
        goes_on = replace(
            self,
            source=self.source + self.count * self.source_pitch,
            target=self.target + self.count * self.target_pitch,
            count=following.count,
        )
        return replace(self, count=self.count + following.count) if goes_on == following else None

    def enqueue(self, stream: Stream) -> None:
        """Raises CudaError."""
        call("cuMemcpy2DAsync", self._copy, stream.handle)

    @cached_property
    def _copy(self) -> Any:
        """As the driver takes it; made once, because the host's time to enqueue is measured, too."""
        bindings = driver()
        copy = bindings.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = bindings.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = self.source, self.source_pitch
        copy.dstDevice, copy.dstPitch = self.target, self.target_pitch
        copy.WidthInBytes, copy.Height = self.width, self.count
        return copy


class Stream:
    """A stream that does not wait for the default stream, and its pair of events for timing."""

    def __init__(self) -> None:
        bindings = driver()
        self.handle = call("cuStreamCreate", int(bindings.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self._events = [call("cuEventCreate", int(bindings.CUevent_flags.CU_EVENT_DEFAULT)) for _ in range(2)]
        self._timing = (
            bindings.cuEventRecord,
            bindings.cuEventSynchronize,
            bindings.cuEventElapsedTime,
        )

    def wait(self) -> None:
        call("cuStreamSynchronize", self.handle)

    def timed(self, launch: Callable[[], None], ahead: Callable[[], None] | None = None) -> float:
        """Milliseconds on the device's clock between an event before and an event after what `launch` enqueues.

        What `ahead` enqueues, or another `launch`, keeps the device busy while the host enqueues the timed one: what
        the host takes between the events is not in it, as long as the work ahead lasts.
        """
        record, synchronize, elapsed = self._timing
        before, after = self._events
        (ahead or launch)()
        record(before, self.handle)
        launch()
        record(after, self.handle)
        (status,) = synchronize(after)
        if int(status) != 0:
            raise CudaError("cuEventSynchronize", getattr(status, "name", str(status)))
        status, milliseconds = elapsed(before, after)
        if int(status) != 0:
            raise CudaError("cuEventElapsedTime", getattr(status, "name", str(status)))
        return float(milliseconds)

    def timed_with_host(
        self, launch: Callable[[], None], ahead: Callable[[], None] | None = None
    ) -> tuple[float, float]:
        """The same, and the milliseconds that the host spent in the timed `launch`."""
        host_ns = 0

        def clocked() -> None:
            nonlocal host_ns
            started = time.perf_counter_ns()
            launch()
            host_ns = time.perf_counter_ns() - started

        return self.timed(clocked, ahead), host_ns / 1e6

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on this stream, as a graph. Raises CudaError where it cannot be captured."""
        mode = driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        call("cuStreamBeginCapture", self.handle, mode)
        try:
            enqueue()
        finally:
            graph = call("cuStreamEndCapture", self.handle)
        return Graph(graph, self)

    def close(self) -> None:
        for event in self._events:
            call("cuEventDestroy", event)
        call("cuStreamDestroy", self.handle)


class Graph:
    """A captured graph, ready to be launched on its stream.

    Its first launch uploads it. An upload of its own (cuGraphUpload) that no launch follows makes the graphs after it
    slower: a step of 99 M parameters by 7 % (benchmarks/performance/generation.py). A step's first capture is never
    launched.
    """

    def __init__(self, graph: Any, stream: Stream) -> None:
        self._executable = call("cuGraphInstantiate", graph, 0)
        call("cuGraphDestroy", graph)
        self._launch = driver().cuGraphLaunch
        self._stream = stream.handle

    def launch(self) -> None:
        (status,) = self._launch(self._executable, self._stream)
        if int(status) != 0:
            raise CudaError("cuGraphLaunch", getattr(status, "name", str(status)))

    def close(self) -> None:
        call("cuGraphExecDestroy", self._executable)
