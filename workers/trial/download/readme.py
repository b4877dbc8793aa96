"""README.md of a trial's downloaded files: how to run them, what each is, and the tensors of its graphs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from layers.declarations.inference import mode
from layers.declarations.inference.generation import GenerationConfig
from layers.signature import Signature, TensorSpec
from workers.trial.download.generation_plan import GenerationPlan, generation_plan
from workers.trial.download.graph_tensors import MEANINGS, decode_tensors, family, prefill_tensors

FILES = {
    "run.py": "measures, scores and generates",
    "configuration.json": "the trial's configuration, metrics, dataset and device",
    "weights.safetensors": "the trained weights",
    "model.onnx": "the graph that reads a whole text at once",
    "prefill.onnx": "the graph of a prompt: its logits, keys and values",
    "decode.onnx": "the graph of a step: one new token, with caches that hold a whole text",
    "model.engine": "the engine of model.onnx",
    "prefill.engine": "the engine of prefill.onnx",
    "decode.engine": "the engine of decode.onnx",
    "decode_1.engine": "a step with smaller caches, for the first tokens",
    "decode_2.engine": "a step with the next larger caches",
    "decode_3.engine": "a step with the next larger caches",
    "loss.engine": "the graph that turns logits and targets into a loss",
    "validation.npz": "the batches that the validation loss is of",
}
"""What each file is, in the order in which they are listed."""

_WHOLE_TEXT = "of the token after each one that is read"
_SHARED = (
    "Several devices share its engines, which are not kept: a worker with as many devices builds them again when the "
    "configuration is measured anew. `run.py` needs an engine."
)
_OTHERS = {"token_mask": "1 for a token, 0 for padding", "attention_mask": "1 if a query may attend to a key"}


@dataclass(frozen=True, slots=True)
class DownloadedTrial:
    """What README.md tells of."""

    trial: str
    dataset: str
    runtime: str
    task: str
    signature: Signature
    """Of the graph that reads a whole text."""
    generation: GenerationConfig | None


def readme(trial: DownloadedTrial, files: Collection[str]) -> str:
    """In Markdown; `files`: the names of those that lie beside it."""
    lines = [
        f"# Trial {trial.trial}",
        "",
        f"Trained on the dataset `{trial.dataset}`; its engines are of {trial.runtime}.",
        "",
        "## Run it",
        "",
        *(_commands(trial) if "model.engine" in files else [_SHARED]),
        "",
        "## Files",
        "",
        *_table(["file", "what it is"], ([f"`{name}`", said] for name, said in FILES.items() if name in files)),
    ]
    if "model.onnx" in files:
        lines += [
            "",
            "## Graphs",
            "",
            "ONNX graphs of static shapes. An engine may lack inputs that its graph does not use.",
        ]
        lines += [*_tensors("model.onnx", trial.signature), *_generation(trial)]
    return "\n".join(lines) + "\n"


def _commands(trial: DownloadedTrial) -> list[str]:
    figures = "latency and validation loss"
    if trial.generation is not None:
        figures = "latency, validation loss, and the medians of a prompt and of a step"
    lines = [f"Measure its {figures} here, beside what the sweep measured:", "", "```sh", "python run.py", "```"]
    if trial.task in mode.TASKS:
        what = "the text and the likeliest tokens after it" if trial.task == "causal_lm" else "what the model answers"
        lines += ["", f"Print {what}:", "", "```sh", "python run.py --prompt 'TEXT' --tokens 50", "```"]
    needs = "It needs NumPy and onnxruntime alone."
    if trial.runtime != "onnxruntime":
        needs = "It needs Layersweep's checkout on PYTHONPATH, and a worker's Python."
    return [*lines, "", needs]


def _generation(trial: DownloadedTrial) -> list[str]:
    config = trial.generation
    if config is None:
        return []
    (logits,) = trial.signature.outputs
    return [
        *_tensors("prefill.onnx", prefill_tensors(config, logits)),
        *_tensors("decode.onnx", decode_tensors(config, logits)),
        "",
        *_steps(generation_plan(config)),
    ]


def _steps(plan: GenerationPlan) -> list[str]:
    caches = ", ".join(f"`{step['engine']}` {step['capacity']}" for step in plan["steps"])
    before, first = plan["prompt_length"], plan["prompt_length"] + plan["prompt_tokens"]
    learned = f" {before} learned vectors lie before the tokens, at the positions 0 to {before - 1}." if before else ""
    return [
        f"A text has at most {plan['prompt_tokens'] + plan['new_tokens']} tokens.{learned} To generate one:",
        "",
        f"1. Run the prompt's graph on the first {plan['prompt_tokens']} tokens. Its logits say the next one.",
        "2. Write the rows that it gives into the caches of a step: the row of position p into slot p mod C.",
        f"3. Run the step on the next token. The first step reads it at position {first}. `positions…` has the "
        "position of the key in each slot, -1 for an empty slot.",
        "4. Write the row that the step gives into the caches, and repeat from 3 with the position after it.",
        "",
        f"So many keys does a cache hold of layers that see the whole text: {caches}. `decode.engine` can do any step; "
        "smaller caches are faster. A layer with a window of W tokens needs the last W - 1 keys alone: its cache has "
        "room for that many, rounded up to a multiple of 8, and its graph ignores older ones.",
        "",
        "Fill a prompt that is shorter than the graph reads up with any tokens: no token sees a later one. Keep the "
        "rows of all its tokens but the last, and read the last one by a step.",
    ]


def _tensors(graph: str, signature: Signature) -> list[str]:
    rows = [["input", *row] for row in _rows(signature.inputs)] + [["output", *row] for row in _rows(signature.outputs)]
    return ["", f"### {graph}", "", *_table(["", "tensor", "type", "shape", "what it is"], rows)]


def _rows(tensors: Sequence[TensorSpec]) -> Iterator[list[str]]:
    """A row for each kind of tensor: those of layers that are alike have one together."""

    def kind(tensor: TensorSpec) -> tuple[str, str, tuple[int, ...]]:
        return family(tensor.name), tensor.dtype, tensor.shape

    order = {each: number for number, each in reversed([*enumerate(map(kind, tensors))])}
    for (name, dtype, shape), alike in itertools.groupby(
        sorted(tensors, key=lambda tensor: order[kind(tensor)]), key=kind
    ):
        names = ", ".join(f"`{tensor.name}`" for tensor in alike)
        said = _WHOLE_TEXT if name == "logits" and len(shape) == 3 else MEANINGS.get(name) or _OTHERS.get(name, "")
        yield [names, dtype, f"[{', '.join(map(str, shape))}]", said]


def _table(head: Sequence[str], rows: Iterator[list[str]] | Sequence[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
