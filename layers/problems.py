"""What is wrong with a document: every problem with its place and its remedy, all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `pointer` is a JSON pointer (RFC 6901) into the document; "" is all of it."""

    pointer: str
    detail: str
    remedy: str = ""


class DocumentError(ValueError):
    """A document that is not a sweep, with everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.pointer or 'the document'}: {first.detail}{more}")
        self.problems = problems


class Problems:
    """Collects problems, so that all are reported together; at MOST of them it raises DocumentError: more help nobody,
    and every one takes time."""

    MOST = 100

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(self, pointer: str, detail: str, remedy: str = "") -> None:
        problem = Problem(pointer, detail, remedy)
        if problem not in self._problems:
            self._problems.append(problem)
        if len(self._problems) >= self.MOST:
            self.raise_any()

    def __len__(self) -> int:
        return len(self._problems)

    def raise_any(self) -> None:
        """Raise DocumentError if there is a problem."""
        if self._problems:
            raise DocumentError(list(self._problems))


def below(pointer: str, key: object) -> str:
    """The JSON pointer of `key` (a name or an index) in what `pointer` points to."""
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def shown(value: object, most: int = 60) -> str:
    """`value` as a message shows it: as YAML and JSON write it if Python differs, and short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return cut(repr(value), most)


def cut(text: str, most: int = 24) -> str:
    """`text` as a message shows it, if it may be long and quotation marks would mislead."""
    return text if len(text) <= most else text[: most - 1] + "…"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`did you mean X or Y?` for the nearest of `words`; else the words themselves, as many as can be read at once."""
    words = list(words)
    # By the last part as well: `num_heads` is near `attention.num_attention_heads`.
    last = {known: known.rpartition(".")[2] for known in words}
    wanted = word[:200].rpartition(".")[2]
    near = difflib.get_close_matches(word[:200], words, n=2, cutoff=0.6)
    close = difflib.get_close_matches(wanted, list(last.values()), n=2, cutoff=0.6)
    # `num_heads` has all of its words in `num_attention_heads`.
    parts = set(wanted.split("_"))
    longer = [known for known in words if len(parts) > 1 and parts < set(last[known].split("_"))]
    near = list(dict.fromkeys([*near[:1], *longer, *near[1:], *(known for known in words if last[known] in close)]))
    if near:
        return f"did you mean {' or '.join(near[:3])}?"
    listed = ", ".join(words[:20])
    return f"one of: {listed}" + (", ..." if len(words) > 20 else "") if words else ""
