"""Which of a trial's downloaded engines does which part of a text: what configuration.json says under `generation`."""

from __future__ import annotations

from typing import TypedDict

from layers.declarations.inference.generation import GenerationConfig


class StepPlan(TypedDict):
    """The engine of the steps whose caches have the same capacity."""

    engine: str
    capacity: int
    """Keys of a layer that sees all tokens."""
    steps: int
    """Those of a measured text."""
    position: int
    """At which a step was measured: amid them."""


class GenerationPlan(TypedDict):
    """A measured text, and its steps by rising capacity."""

    prompt_tokens: int
    new_tokens: int
    prompt_length: int
    """Learned vectors before the tokens: they are cached like tokens, and counted in positions."""
    steps: list[StepPlan]


def generation_plan(config: GenerationConfig) -> GenerationPlan:
    """Of a text of this shape."""
    names = step_names(len(config.buckets))
    return {
        "prompt_tokens": config.prompt_tokens,
        "new_tokens": config.new_tokens,
        "prompt_length": config.prompt_length,
        "steps": [
            {
                "engine": f"{name}.engine",
                "capacity": bucket.capacity,
                "steps": bucket.steps,
                "position": bucket.measured_position,
            }
            for name, bucket in zip(names, config.buckets, strict=True)
        ],
    }


def step_names(count: int) -> list[str]:
    """What the engines of steps are called as artifacts, by rising capacity: `decode` holds a whole text."""
    return [*(f"decode_{number}" for number in range(1, count)), "decode"]
