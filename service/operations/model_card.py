"""The model card of a checkpoint for `transformers`: where it is from, its figures, and how sure they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layers.checkpoints.matching import Match
from layersweep.display.printable import printable
from service.common import formatting
from service.database.models import Dataset, Sweep, Trial
from service.report.markdown import block, code, shown

_PIPELINES = {
    "causal_lm": "text-generation",
    "classification": "text-classification",
    "seq2seq": "text2text-generation",
}

_LOADED = {
    "causal_lm": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer("The ", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=True)[0]))
""",
    "classification": """from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained(".")
""",
    "seq2seq": """from transformers import AutoModelForSeq2SeqLM

model = AutoModelForSeq2SeqLM.from_pretrained(".")
""",
}

_MOST_NEW_TOKENS, _PROMPT_TOKENS = 100, len("The ")
"""Of the example: a tokenizer makes no more than a token of each character of its prompt."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card tells of."""

    sweep: Sweep
    trial: Trial
    dataset: Dataset
    found: Match
    sureness: Sequence[str]
    """What is known of the noise of its figures, a sentence each."""
    has_tokenizer: bool


def model_card(facts: CardFacts) -> str:
    """README.md, in Markdown, with the metadata that a hub of models reads."""
    sweep, trial, found = facts.sweep, facts.trial, facts.found
    return "\n".join(
        [
            _metadata(sweep.task),
            f"# {shown(sweep.name)}, trial {trial.number}",
            "",
            f"A {found.architecture.name} ({code(found.architecture.class_name)}) that a sweep of Layersweep found, "
            f"trained from the start by trial {trial.number} of the sweep {code(sweep.id)}.",
            "",
            *_section("Data", _data(facts.dataset, has_tokenizer=facts.has_tokenizer)),
            *_section("Figures", _figures(sweep, trial)),
            *_section("How sure they are", [f"- {shown(each)}" for each in facts.sureness]),
            *_section("Weights", _weights(found, trial)),
            *_section("Use", [block(_loaded(sweep.task, trial), "python")]),
            *_section("Configuration", [block(json.dumps(trial.configuration, indent=1) + "\n", "json")]),
        ]
    )


def _loaded(task: str, trial: Trial) -> str:
    """The example: of a text no more tokens than the model was trained for, and has positions for."""
    trained, model = trial.configuration["training"], trial.configuration["model"]
    lengths = [trained.get("sequence_length"), model.get("attention.max_position_embeddings")]
    room = min((int(each) for each in lengths if each), default=_MOST_NEW_TOKENS + _PROMPT_TOKENS) - _PROMPT_TOKENS
    return _LOADED.get(task, "").replace("NEW_TOKENS", str(max(1, min(_MOST_NEW_TOKENS, room))))


def _metadata(task: str) -> str:
    lines = ["---", "library_name: transformers", "tags: [layersweep]"]
    if task in _PIPELINES:
        lines.append(f"pipeline_tag: {_PIPELINES[task]}")
    return "\n".join([*lines, "---", ""])


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _data(dataset: Dataset, *, has_tokenizer: bool) -> list[str]:
    splits = ", ".join(
        f"{split} {formatting.count(found.get('examples') or found.get('tokens') or 0)}"
        for split, found in dataset.parts.items()
    )
    tokens = "examples" if any("examples" in found for found in dataset.parts.values()) else "tokens"
    lines = [
        f"{shown(dataset.name)} ({dataset.task}), {tokens}: {splits}. SHA-256 of its arrays: {code(dataset.sha256)}.",
    ]
    if dataset.tokenizer:
        kept = "is beside this file" if has_tokenizer else "has no form that `transformers` reads"
        lines += ["", f"Its tokenizer ({shown(dataset.tokenizer)}) {kept}."]
    return lines


def _figures(sweep: Sweep, trial: Trial) -> list[str]:
    target: Mapping[str, Any] = sweep.target or {}
    lines = ["| metric | value |", "|---|---|"]
    lines += [f"| {name} | {printable(formatting.metric(name, value))} |" for name, value in trial.metrics.items()]
    device = str(target.get("device_model", ""))
    where = f"{target.get('runtime', '')} {target.get('version', '')}".strip()
    if where:
        measured = f"Times and memory are of the engine that {shown(where)} built for {shown(device)}, "
        lines += ["", measured + "and not of `transformers`."]
    return lines


def _weights(found: Match, trial: Trial) -> list[str]:
    model = trial.configuration["model"]
    lines = ["float32, as they were trained."]
    if model.get("dtype", "float32") != "float32":
        lines.append(f"The engine that was measured computes in {model['dtype']}.")
    if found.filled:
        names = ", ".join(code(path) for path in found.filled)
        lines.append(
            f"The architecture has weights that this model has not ({names}): they are zero (scales: one), and change "
            "nothing."
        )
    return [" ".join(lines)]
