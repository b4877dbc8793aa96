"""The torch child: makes a trial's module, exports it, trains it and computes references.

It is kept between trials, with one module in memory. Verbs:

    describe  {}                                                 -> device, versions
    prepare   {configuration, weights?: of a checkpoint}         -> parameter_count, initialized, left
    export    {path, opset, loss_path?, calibration?: npz,       -> seconds, quantized_products, transplanted; quantized
               transplant?: prepare | use, inference?}              if the model says so, calibrated on inputs
                                                                    [batches, ...]. `prepare` keeps a graph for weights
                                                                    to come, `use` takes it: see export/transplant.py.
                                                                    `inference`: that section, of another shape than
                                                                    the configuration's. A model that devices share is
                                                                    written as shards (export/shards)
    export_generation {prefill, steps: {capacity: path}, opset,  -> seconds, transplanted; the graphs of the prompt and
               transplant?, inference?}                             of its steps
    reference {inputs: npz by name, outputs: npz by name,        -> {}; with `graph`, what that ONNX file computes
               graph?}
    train     {training: npz, validation: npz, specials,         -> how it ended; progress: points of the curve, and
               state?: path, resume?: path}                         {step, fraction} alone between them. Stopped by
                                                                    `stop`, it leaves its state there; `resume` goes on
                                                                    from one
    evaluate  {batches: npz}                                     -> loss, accuracy, targets
    save      {path}                                             -> {}; the module's weights as safetensors
    stop      {}                                                 -> {}; at once: a training ends after its step
    release   {}                                                 -> {}; forgets the module

What uses the device takes `turns?`, the device's files: it is done when it is its turn, and says so as progress
(engine/turns/request_turn.py).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import math
import os
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

# Read when CUDA's libraries are initialised: without it their products are not the same from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from safetensors.torch import save_file

from layers.configuration import TrialConfiguration
from layers.declarations import quantization
from layers.export.onnx_export import cast_copy, export_loss, warm_up
from layers.export.transplant import Transplant
from layers.modules.model import build, set_trainable
from layers.signature import Signature
from workers.data.batches import Batches, DataError
from workers.data.splits import Form, load_split
from workers.engine.protocol import JsonObject, Progress, Request, RequestError, Result, serve
from workers.engine.turns.request_turn import RequestTurn
from workers.processes import model_graphs
from workers.processes.generation_graphs import GenerationGraphs
from workers.processes.model_graphs import MadeModel
from workers.processes.model_verbs import (
    ExportAnswer,
    ExportGenerationAnswer,
    PrepareAnswer,
    TorchFacts,
    TrainAnswer,
)
from workers.training import reference, training_state
from workers.training.initialization import begin_with
from workers.training.loop import Point, Training, derived_seed

ALIVE_SECONDS = 5.0

VALIDATION_TOKENS = 16_384
"""About how many tokens of the validation split choose the best checkpoint. The reported losses are of all of it."""


class ModelProcess:
    """One model at a time."""

    def __init__(self) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: MadeModel | None = None
        self._transplants: dict[Signature, Transplant] = {}
        """At each shape the graph of the model that was exported first, for the weights to come."""
        self._generation_graphs = GenerationGraphs()
        self._stop = threading.Event()

    def handlers(self) -> dict[str, Callable[[Request, Progress], Result]]:
        verbs = (
            self.describe,
            self.prepare,
            self.export,
            self.export_generation,
            self.reference,
            self.train,
            self.evaluate,
            self.save,
            self.release,
        )
        return {verb.__name__: _with_memory_errors(verb) for verb in verbs}

    @property
    def _is_cuda(self) -> bool:
        return self._device.type == "cuda"

    def describe(self, request: Request, progress: Progress) -> TorchFacts:
        return {
            "device": torch.cuda.get_device_name(self._device) if self._is_cuda else "cpu",
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }

    def prepare(self, request: Request, progress: Progress) -> PrepareAnswer:
        configuration = TrialConfiguration.of(request["configuration"])
        training = configuration.training
        if not self._is_cuda:
            # The two would lie in the same memory.
            self._forget()
        # A probe has no training: its weights are as good as any others.
        seed = derived_seed(0 if training is None else training.seed, "weights")
        with self._on_processor(request, progress):
            torch.manual_seed(seed)
            if training is None:
                module = build(configuration.model)
            else:
                module = build(configuration.model, dropout=training.dropout, initialization=training.initialization)
            taken, left = begin_with(module, Path(request["weights"])) if "weights" in request else (0, {})
        with self._shared(request, progress):
            self._forget()
            if self._is_cuda:
                torch.cuda.reset_peak_memory_stats(self._device)
            self._model = MadeModel(module.to(self._device), configuration)
        count = sum(parameter.numel() for parameter in module.parameters())
        return {"parameter_count": count, "initialized": taken, "left": left}

    def export(self, request: Request, progress: Progress) -> ExportAnswer:
        with self._on_processor(request, progress):
            return self._export(request)

    def _export(self, request: Request) -> ExportAnswer:
        made = self._made_at(request)
        model, signature = made.configuration.model, made.signature
        started_at = time.monotonic()
        opset, dtype = request["opset"], str(model["dtype"])
        deployed = cast_copy(made.module, dtype).to("cpu")
        (output,) = signature.outputs
        kept = self._transplants.pop(signature, None)
        transplant = kept if request.get("transplant") == "use" else None
        with _explained():
            if model_graphs.is_shared(model):
                model_graphs.write_parts(made, deployed, Path(request["path"]), opset)
            elif request.get("transplant") == "prepare":
                transplant = model_graphs.prepared_transplant(made, deployed, Path(request["path"]), opset)
            if transplant is not None:
                transplant.write(deployed, Path(request["path"]))
                self._transplants[signature] = transplant
            elif not model_graphs.is_shared(model):
                model_graphs.write(made, deployed, Path(request["path"]), opset)
            quantized = 0
            if quantization.of_model(model) != quantization.NONE:
                quantized = model_graphs.quantize(made, Path(request["path"]), Path(request["calibration"]))
            if request.get("loss_path"):
                export_loss(Path(request["loss_path"]), logits_shape=output.shape, opset=opset, dtype=dtype)
        return {
            "seconds": time.monotonic() - started_at,
            "quantized_products": quantized,
            "transplanted": transplant is not None,
        }

    def export_generation(self, request: Request, progress: Progress) -> ExportGenerationAnswer:
        made = self._made_at(request)
        document = made.configuration.document
        with self._on_processor(request, progress), _explained():
            started_at = time.monotonic()
            deployed = cast_copy(made.module, str(document["model"]["dtype"])).to("cpu")
            transplanted = self._generation_graphs.write(deployed, document, request)
        return {"seconds": time.monotonic() - started_at, "transplanted": transplanted}

    def reference(self, request: Request, progress: Progress) -> Result:
        made = self._made()
        with np.load(request["inputs"], allow_pickle=False) as arrays, self._shared(request, progress):
            if request.get("graph"):
                found = reference.graph_outputs(Path(request["graph"]), arrays, made.input_names)
            else:
                found = reference.outputs(made.module, arrays, made.input_names, self._device)
        (output,) = made.signature.outputs
        np.savez(request["outputs"], allow_pickle=False, **{output.name: found})
        return {}

    def train(self, request: Request, progress: Progress) -> TrainAnswer:
        self._stop.clear()
        made = self._made()
        task, section = made.configuration.task, made.configuration.training
        if section is None:
            raise RequestError("invalid", f"a {task} is not trained")
        form = Form.of(made.input_names, section, request["specials"])
        set_trainable(made.module, section.trainable)
        try:
            training = Training(
                made.module,
                load_split(Path(request["training"]), task, form),
                load_split(Path(request["validation"]), task, form).evaluation(
                    1, at_most=max(1, VALIDATION_TOKENS // form.sequence_length)
                ),
                section,
                names=made.input_names,
                choices=made.choices,
                device=self._device,
            )
            keepalive = _Keepalive(progress)
            # A budget in seconds is to buy as many steps as the device makes: nobody else's may be among them.
            kind = "shared" if section.seconds is None else "alone"
            with RequestTurn(
                request, progress, kind, synchronize=self._synchronize, details=keepalive.where_it_waits
            ) as turn:
                trained = training.run(
                    lambda point: progress(_as_progress(point)),
                    alive=keepalive.step,
                    pause=turn.give_way,
                    stop=self._stop,
                    resume=None if "resume" not in request else training_state.read(Path(request["resume"])),
                )
        except DataError as error:
            raise RequestError("invalid", str(error)) from None
        if trained.stopped == "asked" and "state" in request:
            training_state.write(Path(request["state"]), training.state())
        memory = {"device_memory_bytes": torch.cuda.max_memory_reserved(self._device)} if self._is_cuda else {}
        return cast("TrainAnswer", {**dataclasses.asdict(trained), **self.describe(request, progress), **memory})

    def evaluate(self, request: Request, progress: Progress) -> Result:
        made, batches = self._made(), Batches.load(Path(request["batches"]))
        with RequestTurn(request, progress, "shared", synchronize=self._synchronize) as turn:
            score = reference.score(
                made.module, batches, made.input_names, self._device, choices=made.choices, give_way=turn.give_way
            )
        return dataclasses.asdict(score)

    def save(self, request: Request, progress: Progress) -> Result:
        # A tied table is stored under both names: the format has no aliases.
        weights = self._made().module.state_dict()
        state = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
        save_file(state, request["path"])
        return {}

    def release(self, request: Request, progress: Progress) -> Result:
        with self._shared(request, progress):
            self._forget()
        return {}

    def _forget(self) -> None:
        """Give the memory of the module back."""
        self._model = None
        self._transplants.clear()
        self._generation_graphs.clear()
        gc.collect()
        if self._is_cuda:
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _on_processor(self, request: Request, progress: Progress) -> Generator[None]:
        """Compute on the processor. If that is the device, nothing is measured there until it has done; trainings
        go on beside it."""
        kind = None if self._is_cuda else "shared"
        with RequestTurn(request, progress, kind, gives_way=False) as turn:
            turn.give_way()
            yield

    @contextlib.contextmanager
    def _shared(self, request: Request, progress: Progress) -> Generator[None]:
        """Have the device with others, until it has done what it was given."""
        with RequestTurn(request, progress, "shared") as turn:
            turn.give_way()
            yield
            self._synchronize()

    def _synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self._is_cuda:
            torch.cuda.synchronize(self._device)

    def stop(self, request: Request) -> Result:
        self._stop.set()
        return {}

    def _made_at(self, request: Request) -> MadeModel:
        """The module at the shape that a request names, if it names one."""
        made = self._made()
        return made.at(request["inference"]) if "inference" in request else made

    def _made(self) -> MadeModel:
        if self._model is None:
            raise RequestError("invalid", "there is no module: send `prepare` first")
        return self._model


class _Keepalive:
    """Says every few seconds that a training moves, however far apart the points of its curve are."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._at = {"step": 0, "fraction": 0.0}
        self._said_at = time.monotonic()

    def step(self, step: int, fraction: float) -> None:
        self._at = {"step": step, "fraction": fraction}
        if time.monotonic() - self._said_at >= ALIVE_SECONDS:
            self._said_at = time.monotonic()
            self._progress(self._at)

    def where_it_waits(self) -> JsonObject:
        """Where it stands while it waits for its turn. The next step says that it moves again."""
        self._said_at = -math.inf
        return self._at


@contextlib.contextmanager
def _explained() -> Generator[None]:
    """Say of what goes wrong in an export that it is one."""
    try:
        yield
    except (RequestError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise RequestError("build", f"the model cannot be exported: {error}") from error


def _as_progress(point: Point) -> JsonObject:
    return {name: value for name, value in dataclasses.asdict(point).items() if value is not None}


def _with_memory_errors(verb: Callable[[Request, Progress], Result]) -> Callable[[Request, Progress], Result]:
    """Name the ways in which torch says that memory is short."""

    def wrapped(request: Request, progress: Progress) -> Result:
        try:
            return verb(request, progress)
        except torch.OutOfMemoryError as error:
            raise RequestError("out_of_memory", f"`{verb.__name__}`: {error}") from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error):
                raise RequestError("out_of_memory", f"`{verb.__name__}`: {error}") from error
            raise

    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workers.processes.torch_child", description="The worker's torch child."
    )
    parser.add_argument("--answers-fd", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else every new tensor is filled before it is written: an eighth of a training on a GPU, and no other losses.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Its attention has no deterministic backward pass; the other kernels have.
    torch.backends.cuda.enable_cudnn_sdp(False)
    process = ModelProcess()
    # Before anything is asked for: a worker starts this process while it has no trial yet.
    warm_up()
    # What is there now stays: collections need not look through it for each model that is forgotten.
    gc.collect()
    gc.freeze()
    serve(process.handlers(), arguments.answers_fd, immediate={"stop": process.stop})


if __name__ == "__main__":
    main()
