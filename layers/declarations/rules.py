"""What the sections of the declarations share: broken rules, and which parameters apply when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.parameter import Scalar


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule between parameters that a model breaks. `rule` is a stable short name, `paths` the parameters it names."""

    rule: str
    message: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter applies only if `path` (below `model`) has one of `values`."""

    path: str
    values: tuple[Scalar, ...]

    def holds(self, model: Mapping[str, Scalar]) -> bool:
        return model.get(self.path) in self.values

    def __str__(self) -> str:
        """The condition as a sweep document's `when` writes it."""
        literals = [_literal(value) for value in self.values]
        return f"{self.path} == {literals[0]}" if len(literals) == 1 else f"{self.path} in [{', '.join(literals)}]"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def round_up(value: float, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return int(-(-value // multiple)) * multiple
