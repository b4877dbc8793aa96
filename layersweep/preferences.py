"""What a caller wants of a recommendation, as it stands in a query and in a body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SelectionPreferences:
    """How to choose on the front, in the words of the API. Empty: the trial nearest to the ideal point."""

    prefer: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        prefer: str | Sequence[str],
        within: Mapping[str, str | float] | None,
        weights: Mapping[str, float] | None,
    ) -> SelectionPreferences:
        """From the arguments of `Sweep.recommendation`, `report` and `confirm`."""
        return cls(
            (prefer,) if isinstance(prefer, str) else tuple(prefer),
            tuple(f"{metric}:{amount}" for metric, amount in (within or {}).items()),
            tuple(f"{metric}:{float(weight)!r}" for metric, weight in (weights or {}).items()),
        )

    def fields(self) -> dict[str, list[str]]:
        """What is wished for, as parameters of a query or members of a body; nothing for what is not."""
        found = {"prefer": list(self.prefer), "within": list(self.within), "weight": list(self.weight)}
        return {name: given for name, given in found.items() if given}
