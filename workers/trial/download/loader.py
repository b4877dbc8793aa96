"""Runs a trial's downloaded artifacts: measures and scores its engines, and generates text with them.

Stands alone: numpy and the engine's runtime, no service, no PyTorch. It lies beside the artifacts as `run.py`.

    python run.py [FOLDER]
    python run.py [FOLDER] --prompt TEXT [--tokens N]

The first prints one line of JSON: what is measured here, and under `reported` what the sweep reported. The second
prints the text, and then up to N tokens, each of which is the likeliest after those before it.
Without FOLDER it runs what it lies beside. If a package is missing it says which.
An engine of TensorRT runs by `workers.engine` of Layersweep's checkout, which must be on PYTHONPATH then.

README.md, beside it, lists the tensors of each graph. Shapes: B sequences, P tokens of the prompt that is read at once,
T tokens, V logits, K key and value heads, C keys of a cache, H head size.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

try:
    import numpy as np
except ImportError:
    sys.exit(
        f"run.py needs NumPy and the engine's runtime, and {sys.executable} has no NumPy. Install them there "
        "(python -m pip install numpy onnxruntime), or run it with a worker's Python: .venv/bin/python of its checkout"
    )

WARMUP_SECONDS = 0.2
MEASURE_SECONDS = 3.0
INPUT_SETS = 4
NEW_TOKENS = 100  # of an engine that reads whole texts, if it has room
EMPTY = -1  # the position of a slot of a cache that holds no key

Arrays = dict[str, "np.ndarray[Any, Any]"]
Codec = tuple[Callable[[str], list[int]], Callable[[list[int]], str]]
"""From a text to tokens, and back."""


class Graph(Protocol):
    """A loaded engine: the shapes and types of its inputs by name."""

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, Any]

    def run(self, inputs: Arrays) -> Arrays: ...

    def loss(self, loss_graph: Path, batches: Arrays) -> float:
        """Nats a target, over all batches."""
        ...

    def samples_ms(self, sets: list[Arrays], seconds: float, slots: dict[str, int]) -> list[float]:
        """How long each run takes, over these sets of inputs in turn. slots: the caches that a run writes its new keys
        and values into, and where."""
        ...

    def close(self) -> None: ...


Open = Callable[[Path], Graph]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py", description="Measure and score the engines of a downloaded trial, or generate text with them."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).resolve().parent, help="left out: where run.py lies"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="print this text, and how the model goes on")
    parser.add_argument("--tokens", metavar="N", type=int, help="how many tokens to generate at most")
    asked = parser.parse_args()
    folder: Path = asked.folder
    if lacks := [name for name in ("configuration.json", "model.engine") if not (folder / name).is_file()]:
        parser.error(f"{folder} is no folder of a downloaded trial with its engine: it has no {lacks[0]}")
    if asked.prompt is None and asked.tokens is not None:
        parser.error("--tokens is of a text: give --prompt TEXT, too")
    described = json.loads((folder / "configuration.json").read_text())
    if found := missing_runtime(described):
        sys.exit(found)
    if asked.prompt is None:
        sys.stdout.write(json.dumps(measured(folder, described)) + "\n")
    else:
        sys.stdout.write(continued(folder, described, asked.prompt, asked.tokens) + "\n")


def missing_runtime(described: dict[str, Any]) -> str | None:
    """What this Python lacks to run the engine, and how to get it; None if it lacks nothing."""
    runtime, version = described["runtime"], described["environment"].get("runtime_version")
    if runtime != "onnxruntime":
        advice = "put Layersweep's checkout on PYTHONPATH and run it with the worker's Python, .venv/bin/python"
        return None if find_spec("workers") else f"an engine of {runtime} runs by Layersweep's checkout: {advice}"
    if find_spec(runtime):
        return None
    package = f"{runtime}=={version}" if version else runtime
    return f"{sys.executable} has no {runtime}: {sys.executable} -m pip install {package}"


def opener(described: dict[str, Any]) -> Open:
    """What loads an engine of the trial's runtime."""
    if described["runtime"] != "onnxruntime":
        # With the code that measured it in the sweep.
        return partial(import_module("workers.trial.download.checkout_graph").CheckoutGraph, described["runtime"])
    threads = described["environment"].get("intra_op_threads", 1)
    return lambda path: OnnxRuntimeGraph(path, threads)


def measured(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The figures of the engines here, and beside them, as `reported`, those of the sweep."""
    open_graph = opener(described)
    with np.load(folder / "validation.npz", allow_pickle=False) as arrays:
        batches = {name: arrays[name] for name in arrays.files}
    graph = open_graph(folder / "model.engine")
    loss = graph.loss(folder / "loss.engine", batches)
    inputs = {name: batches[name] for name in graph.shapes}
    samples_ms = graph.samples_ms(sets_of(inputs), MEASURE_SECONDS, {})
    graph.close()
    found: dict[str, Any] = {
        "validation_loss": loss,
        "latency_ms_p50": float(np.percentile(samples_ms, 50)),
        "runs": len(samples_ms),
    }
    if described.get("generation"):
        found |= measured_generation(folder, described["generation"], batches, open_graph)
    return {**found, "reported": {name: described["metrics"].get(name) for name in found if name != "runs"}}


def measured_generation(folder: Path, plan: dict[str, Any], batches: Arrays, open_graph: Open) -> dict[str, float]:
    """The medians of a prompt, and of the steps of a text: those of each engine count as often as a text does them."""
    prefill = open_graph(folder / "prefill.engine")
    prompts = {name: batches[name][..., : shape[-1]] for name, shape in prefill.shapes.items()}
    prompt_ms = prefill.samples_ms(sets_of(prompts), MEASURE_SECONDS, {})
    prefill.close()
    generator = np.random.default_rng(0)
    steps_ms: list[list[float]] = []
    for step in plan["steps"]:
        graph = open_graph(folder / step["engine"])
        position = step["position"]
        inputs = step_inputs(graph, empty_caches(graph), 0, position)
        for name, array in inputs.items():
            if name == "source_mask":
                array[...] = 1
            elif name.startswith(("past_", "source_")):
                array[...] = generator.standard_normal(array.shape)
        slots = {name: position % shape[2] for name, shape in graph.shapes.items() if name.startswith("past_")}
        steps_ms.append(graph.samples_ms([inputs], MEASURE_SECONDS / len(plan["steps"]), slots))
        graph.close()
    return {
        "prefill_ms_p50": float(np.percentile(prompt_ms, 50)),
        "decode_ms_per_token_p50": weighted_median(steps_ms, [step["steps"] for step in plan["steps"]]),
    }


def sets_of(batches: Arrays) -> list[Arrays]:
    """The first batches, which a measurement rotates over."""
    count = min(INPUT_SETS, *(len(array) for array in batches.values()))
    return [{name: np.ascontiguousarray(array[index]) for name, array in batches.items()} for index in range(count)]


def weighted_median(samples: list[list[float]], counts: list[int]) -> float:
    """Of steps like `samples`, `counts` of each kind, however many samples there are; linear between two samples."""
    values = np.concatenate(samples)
    weights = np.repeat([n / len(each) for n, each in zip(counts, samples, strict=True)], [*map(len, samples)])
    order = np.argsort(values, kind="stable")
    middles = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp((middles[0] + middles[-1]) / 2, middles, values[order]))


def continued(folder: Path, described: dict[str, Any], prompt: str, count: int | None) -> str:
    """The text and up to `count` tokens after it. Exits with what is wrong."""
    open_graph, plan = opener(described), described.get("generation")
    task, inference = described["configuration"]["task"], described["configuration"]["inference"]
    facts = described["dataset"]["facts"]
    if task not in ("causal_lm", "seq2seq"):
        sys.exit(f"the model of a {task} generates no text")
    encode, decode = vocabulary(folder, described)
    given = encode(prompt)
    if not given:
        sys.exit("--prompt is empty: give at least one token")
    source: Arrays = {}
    if task == "seq2seq":
        source, given = source_arrays(given, inference, facts["pad_id"]), [facts["start_id"]]
    room = (plan["prompt_tokens"] + plan["new_tokens"] if plan else inference["sequence_length"] + 1) - len(given)
    if room < 1:
        sys.exit(f"--prompt has {len(given):,} tokens: there is room for {len(given) + room - 1:,} and an answer")
    wanted = min(room, plan["new_tokens"] if plan else NEW_TOKENS) if count is None else count
    if not 1 <= wanted <= room:
        sys.exit(f"--tokens is {wanted:,}: after this prompt the engines have room for 1 to {room:,}")
    tokens = with_caches(folder, plan, open_graph, source, given) if plan else whole(folder, open_graph, source, given)
    answer: list[int] = []
    for token in tokens:
        if token == facts.get("end_id"):
            break
        answer.append(token)
        if len(answer) == wanted:
            break
    return decode(answer) if source else decode(given + answer)


def whole(folder: Path, open_graph: Open, source: Arrays, given: list[int]) -> Iterator[int]:
    """The tokens after those that are given, by an engine that reads the whole text for each."""
    graph = open_graph(folder / "model.engine")
    text, inputs = list(given), np.zeros(graph.shapes["tokens"], np.int32)
    while True:
        # What comes after a token does not change its logits: no token sees a later one.
        inputs[:, : len(text)] = text
        (logits_BTV,) = graph.run({**source, "tokens": inputs}).values()
        text.append(int(logits_BTV[0, len(text) - 1].argmax()))
        yield text[-1]


def with_caches(
    folder: Path, plan: dict[str, Any], open_graph: Open, source: Arrays, given: list[int]
) -> Iterator[int]:
    """The tokens after those that are given, by the engines of the prompt and of the steps."""
    prefill = open_graph(folder / "prefill.engine")
    batch, prompt = prefill.shapes["tokens"]
    tokens_BP = np.zeros((batch, prompt), np.int32)
    tokens_BP[:, : len(given)] = given[:prompt]
    rows = prefill.run({**source, "tokens": tokens_BP})
    prefill.close()
    kept = source | {name: rows.pop(name) for name in list(rows) if name.startswith("source_")}
    logits_BV = rows.pop("logits")
    # Vectors that were learnt lie in the caches before the tokens.
    before = plan["prompt_length"]
    # A prompt that is shorter than P was filled up: its last token is read by a step, for its logits.
    length = before + (prompt if len(given) >= prompt else len(given) - 1)
    history = {name: [array[:, :, :length]] for name, array in rows.items()}
    text, step = list(given), None
    caches: Arrays = {}
    graph: Graph | None = None
    while True:
        if length - before == len(text):
            text.append(int(logits_BV[0].argmax()))
            yield text[-1]
        if graph is None or step is None or step["capacity"] < length:
            # The smallest caches that hold what was read. As a text grows, the next larger ones take over.
            step = next(each for each in plan["steps"] if each["capacity"] >= length)
            if graph is not None:
                graph.close()
            graph = open_graph(folder / step["engine"])
            caches = empty_caches(graph)
            for name, cache in caches.items():
                fill(cache, np.concatenate(history[name.removeprefix("past_")], axis=2), 0)
        rows = graph.run(step_inputs(graph, {**kept, **caches}, text[length - before], length))
        logits_BV = rows.pop("logits")
        for name, row in rows.items():
            history[name].append(row)
            if f"past_{name}" in caches:
                fill(caches[f"past_{name}"], row, length)
        length += 1


def empty_caches(graph: Graph) -> Arrays:
    """`past_key_0`, `past_value_0`, ... [B, K, C, H]: zeros."""
    return {name: np.zeros(graph.shapes[name], graph.types[name]) for name in graph.shapes if name.startswith("past_")}


def fill(cache: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], first: int) -> None:
    """Write rows [B, K, T, H] of the tokens from position `first` on: that at position p lies in slot p mod C, so that
    a cache holds the last C tokens."""
    capacity = cache.shape[2]
    positions = np.arange(first, first + rows.shape[2])[-capacity:]
    cache[:, :, positions % capacity] = rows[:, :, rows.shape[2] - len(positions) :]


def step_inputs(graph: Graph, arrays: Arrays, token: int, position: int) -> Arrays:
    """What the engine of a step takes to read `token` at `position`, the tokens before it being in the caches."""
    inputs: Arrays = {}
    for name, shape in graph.shapes.items():
        if name == "tokens":
            inputs[name] = np.full(shape, token, np.int32)
        elif name == "position":
            inputs[name] = np.array([position], np.int32)
        elif name.startswith("positions"):
            inputs[name] = positions_in(shape[0], position)
        else:
            inputs[name] = arrays[name] if name in arrays else np.zeros(shape, graph.types[name])
    return inputs


def positions_in(capacity: int, length: int) -> np.ndarray[Any, Any]:
    """Where in a text of `length` tokens the key of each slot is from; EMPTY if there is none."""
    slots = np.arange(capacity)
    last = length - 1 - (length - 1 - slots) % capacity
    return np.where(last >= 0, last, EMPTY).astype(np.int32)


def source_arrays(tokens: list[int], inference: dict[str, Any], pad: int) -> Arrays:
    """`source` and `source_mask` [B, S] of what an encoder reads. Exits if it is too long."""
    length = inference["source_length"]
    if len(tokens) > length:
        sys.exit(f"--prompt has {len(tokens):,} tokens: the engines read a source of at most {length:,}")
    source_BS, mask_BS = np.full((inference["batch_size"], length), pad, np.int32), np.zeros((1, length), np.int32)
    source_BS[:, : len(tokens)], mask_BS[:, : len(tokens)] = tokens, 1
    return {"source": source_BS, "source_mask": np.repeat(mask_BS, len(source_BS), axis=0)}


def vocabulary(folder: Path, described: dict[str, Any]) -> Codec:
    """The dataset's tokens. Exits with what is missing."""
    facts = described["dataset"]["facts"]
    if "source_symbols" in facts:
        return (
            by_symbols(facts["source_symbols"], 1, facts["tokenizer"])[0],
            by_symbols(facts["target_symbols"], 3, facts["target_tokenizer"])[1],
        )
    tokenizer = facts.get("tokenizer")
    if tokenizer == "byte":
        # Of what is no UTF-8 on the command line, Python keeps the bytes as surrogates.
        return lambda text: list(text.encode(errors="surrogateescape")), lambda tokens: bytes(tokens).decode(
            errors="replace"
        )
    if tokenizer == "char":
        return by_symbols(facts["vocabulary"], 0, "char")
    if tokenizer is None and "tokenizer_sha256" not in facts:
        return by_symbols([str(number) for number in range(facts["vocabulary_size"])], 0, "whitespace")
    if not (folder / "tokenizer.json").is_file():
        name = described["dataset"]["name"]
        sys.exit(f"{folder} has no tokenizer.json: `layersweep trial download` fetches that of the dataset {name}")
    if not find_spec("tokenizers"):
        sys.exit(f"{sys.executable} has no tokenizers: {sys.executable} -m pip install tokenizers")
    loaded = import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: loaded.encode(text, add_special_tokens=False).ids, loaded.decode


def by_symbols(symbols: list[str], first: int, tokenizer: str) -> Codec:
    """By symbols that are numbered from `first`: characters, or what white space parts."""
    numbers = {symbol: number for number, symbol in enumerate(symbols, first)}

    def encode(text: str) -> list[int]:
        found = list(text) if tokenizer == "char" else text.split()
        if unknown := sorted(set(found) - set(numbers)):
            sys.exit(f"the dataset has no {', '.join(map(repr, unknown))}: write --prompt without")
        return [numbers[symbol] for symbol in found]

    def decode(tokens: list[int]) -> str:
        known = [symbols[token - first] for token in tokens if token >= first]
        return ("" if tokenizer == "char" else " ").join(known)

    return encode, decode


class OnnxRuntimeGraph:
    """As the worker runs it: optimized when it was built, so loaded with optimization off; threads that sleep."""

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        self._session = self._opened(path, optimize=False)
        self.shapes = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}
        self.types = {value.name: kinds[value.type] for value in self._session.get_inputs()}

    def run(self, inputs: Arrays) -> Arrays:
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))

    def samples_ms(self, sets: list[Arrays], seconds: float, slots: dict[str, int]) -> list[float]:
        import onnxruntime

        bindings: list[Any] = []
        copies: list[tuple[Any, Any]] = []
        for arrays in sets:
            binding = self._session.io_binding()
            values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for output in self._session.get_outputs():
                room = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, np.float32, "cpu")
                binding.bind_ortvalue_output(output.name, room)
                if (slot := slots.get(cache := f"past_{output.name}")) is not None:
                    # `numpy()` of a tensor on the CPU is the tensor's own memory.
                    copies.append((values[cache].numpy()[:, :, slot], room.numpy()[:, :, 0]))
            bindings.append(binding)
        samples_ms: list[float] = []
        runs, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < WARMUP_SECONDS + seconds or not samples_ms:
            binding = bindings[runs % len(bindings)]
            began = time.perf_counter_ns()
            self._session.run_with_iobinding(binding)
            for place, row in copies:
                place[...] = row
            taken_ms = (time.perf_counter_ns() - began) / 1e6
            runs += 1
            samples_ms += [taken_ms] if elapsed >= WARMUP_SECONDS else []
        return samples_ms

    def loss(self, loss_graph: Path, batches: Arrays) -> float:
        session, sums = self._opened(loss_graph, optimize=True), np.zeros(2)
        for index in range(len(batches["targets"])):
            (logits,) = self.run({name: batches[name][index] for name in self.shapes}).values()
            given = {"logits": logits, "targets": batches["targets"][index], "weights": batches["weights"][index]}
            sums += [float(value) for value in session.run(["loss_sum", "weight_sum"], given)]
        return float(sums[0] / sums[1])

    def close(self) -> None:
        del self._session

    def _opened(self, path: Path, *, optimize: bool) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
