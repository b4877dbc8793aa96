"""An independent measurement of a TensorRT engine in the manner of trtexec.

An event pair around each launch, spin wait, 200 ms of warm-up, then 3 s. It shares no code with workers/engine: CUDA
through its runtime's bindings, buffers of its own.

    $LAYERSWEEP_ENGINE_PYTHON benchmarks/performance/trtexec_loop.py ENGINE INPUTS.npz [--seconds 3] [--plain]
        [--slot S] [--earlier uploaded|launched]

Prints one line of JSON: the median of the device times in milliseconds, under a CUDA graph unless --plain. --earlier:
the same graph was captured once before, and only uploaded to the device, or launched, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zipfile

import numpy as np
import tensorrt as trt
from cuda.bindings import runtime as cudart

KINDS = {trt.float32: 4, trt.float16: 2, trt.int32: 4}


def must(result: tuple) -> object:
    error, *rest = result
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(f"CUDA: {error}")
    return rest[0] if rest else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("inputs")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--earlier", choices=("uploaded", "launched"))
    parser.add_argument("--slot", type=int, help="of caches past_X [B, K, S, H]: where each run writes X [B, K, 1, H]")
    options = parser.parse_args()

    must(cudart.cudaSetDeviceFlags(cudart.cudaDeviceScheduleSpin))
    must(cudart.cudaSetDevice(0))
    plan = zipfile.ZipFile(options.engine).read("plan")
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    arrays = np.load(options.inputs)
    kept, pointers, shapes = [], {}, {}
    names = sorted(engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
    caches = [name for name in names if name.startswith("past_")] if options.slot is not None else []
    # Caches of one shape lie one after another, and so do their rows: one copy writes them all.
    is_one_block = len({tuple(engine.get_tensor_shape(name)) for name in caches}) == 1
    blocks: dict[bool, int] = {}
    for name in names:
        size = int(np.prod(tuple(engine.get_tensor_shape(name)), dtype=np.int64)) * KINDS[engine.get_tensor_dtype(name)]
        if is_one_block and (name in caches or f"past_{name}" in caches):
            pointer = blocks.setdefault(name in caches, 0) or must(cudart.cudaMalloc(size * len(caches)))
            blocks[name in caches] = int(pointer) + size
        else:
            pointer = must(cudart.cudaMalloc(size))
        if name in arrays:
            array = np.ascontiguousarray(arrays[name])
            kept.append(array)
            must(cudart.cudaMemcpy(pointer, array.ctypes.data, size, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice))
        context.set_tensor_address(name, int(pointer))
        pointers[name], shapes[name] = (
            int(pointer),
            (*engine.get_tensor_shape(name), KINDS[engine.get_tensor_dtype(name)]),
        )

    stream = must(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
    handle = int(stream)
    context.execute_async_v3(handle)
    must(cudart.cudaStreamSynchronize(stream))

    def launch_plain() -> None:
        context.execute_async_v3(handle)
        for name in caches[:1] if is_one_block else caches:
            sequences, heads, slots, size, itemsize = shapes[name]
            count = sequences * heads * (len(caches) if is_one_block else 1)
            row = size * itemsize
            device_to_device = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            target, source = pointers[name] + options.slot * row, pointers[name.removeprefix("past_")]
            must(cudart.cudaMemcpy2DAsync(target, slots * row, source, row, row, count, device_to_device, handle))

    def captured() -> object:
        must(cudart.cudaStreamBeginCapture(stream, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        launch_plain()
        return must(cudart.cudaGraphInstantiate(must(cudart.cudaStreamEndCapture(stream)), 0))

    if options.earlier:
        earlier = captured()
        if options.earlier == "uploaded":
            must(cudart.cudaGraphUpload(earlier, stream))
        else:
            must(cudart.cudaGraphLaunch(earlier, stream))
        must(cudart.cudaStreamSynchronize(stream))

    launch = launch_plain
    if not options.plain:
        executable = captured()

        def launch_graph() -> None:
            cudart.cudaGraphLaunch(executable, stream)

        launch = launch_graph

    # As trtexec does, the next launch is in the queue before the one before it is waited for.
    pairs = [(must(cudart.cudaEventCreate()), must(cudart.cudaEventCreate())) for _ in range(2)]
    turn = 0

    def put() -> None:
        start, end = pairs[turn]
        cudart.cudaEventRecord(start, stream)
        launch()
        cudart.cudaEventRecord(end, stream)

    put()

    def once() -> float:
        nonlocal turn
        turn = 1 - turn
        put()
        start, end = pairs[1 - turn]
        cudart.cudaEventSynchronize(end)
        return cudart.cudaEventElapsedTime(start, end)[1]

    until = time.perf_counter() + 0.2
    while time.perf_counter() < until:
        once()
    times = []
    until = time.perf_counter() + options.seconds
    while time.perf_counter() < until or len(times) < 10:
        times.append(once())
    print(json.dumps({"median_ms": statistics.median(times), "runs": len(times), "graph": not options.plain}))


if __name__ == "__main__":
    main()
