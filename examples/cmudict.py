"""Makes the data of pronunciation.yaml: some words of a cmudict file as lines of spelling, tab, phonemes.

    python examples/cmudict.py cmudict.dict pronunciation.tsv --words 5000

Words are chosen by the SHA-256 of their spelling, so the choice is the same everywhere. All pronunciations of a word
are kept, each on a line of its own, without the number of the variant; stress marks are left out (--stress keeps them).
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

VARIANT = re.compile(r"\(\d+\)$")


def entries(path: Path) -> Iterator[tuple[str, str]]:
    """Every word of letters with its phonemes."""
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        spelling = VARIANT.sub("", word)
        if spelling.isalpha() and phonemes:
            yield spelling, phonemes.strip()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dictionary", type=Path)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--words", type=int, default=5000)
    arguments.add_argument("--stress", action="store_true", help="keep the digits of stressed vowels")
    options = arguments.parse_args()

    pronounced: dict[str, list[str]] = {}
    for spelling, phonemes in entries(options.dictionary):
        spoken = phonemes if options.stress else re.sub(r"\d", "", phonemes)
        if spoken not in (known := pronounced.setdefault(spelling, [])):
            known.append(spoken)
    chosen = sorted(pronounced, key=lambda word: hashlib.sha256(word.encode()).digest())[: options.words]
    lines = [f"{word}\t{spoken}" for word in sorted(chosen) for spoken in pronounced[word]]
    options.output.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(f"{len(chosen):,} words, {len(lines):,} lines: {options.output}")


if __name__ == "__main__":
    main()
