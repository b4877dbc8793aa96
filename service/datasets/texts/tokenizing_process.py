"""Texts are tokenized in a process of their own.

Its memory is given back when it ends, and a tokenizer that was made to take all memory, or time without end, takes no
more than it may.

The request comes as JSON on the standard input, the answer goes to the standard output; tokens go to files.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from service.datasets.texts import tokens, utf8
from service.datasets.texts.subwords import SubwordTokenizer
from service.datasets.texts.utf8 import ByteRange
from service.errors import UnprocessableError

MOST_TRAINING_BYTES = 32 << 20
"""A tokenizer is trained on so much of the training split, spread evenly over it."""

ADDRESS_SPACE_BYTES = 4 << 30
"""Reserved, of which far less is used: each thread of the library reserves some."""

PROCESSOR_SECONDS = 120
PROCESSOR_SECONDS_PER_MB = 30
"""More than ten times what a tokenizer with a normalizer and a slow pattern takes."""

SYMBOL_CHARACTERS = 64

OUT_OF_MEMORY = 3
"""The exit status of a process that noticed it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A text by splits, and its tokenizer: to be trained, or given."""

    text: str
    ranges: Mapping[str, tuple[int, int]]
    """Where each split begins and ends, in bytes."""
    tokenizer: str
    """The `tokenizer.json`: where it is to be written, or lies."""
    vocabulary_size: int | None
    """Of the one that is to be trained; None: it is given."""
    folder: str
    """Where the tokens go, in a file a split, and the names of all tokens (`symbols.json`)."""
    most_bytes: int
    """Of address space."""


@dataclass(frozen=True, slots=True)
class Answer:
    vocabulary_size: int = 0
    gives_back: bool = False
    """Whether tokens decode to the text that they were read from."""
    refused: str | None = None
    """Why there are no tokens."""


def tokenize(request: Request) -> Answer:
    """Have a process tokenize the text. Raises UnprocessableError with what is wrong with the tokenizer."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    ended = subprocess.run(
        [sys.executable, "-m", "service.datasets.texts.tokenizing_process"],
        input=json.dumps(asdict(request)).encode(),
        capture_output=True,
        env=environment,
        check=False,
    )
    if ended.returncode < 0 or ended.returncode == OUT_OF_MEMORY:
        # The library ends its process if it is given no memory, and the system if its time is over.
        raise UnprocessableError(
            f"the tokenizer took more memory or time than it may ({request.most_bytes >> 20:,} MiB, "
            f"{_processor_seconds(request):,} seconds of a processor) over this text: give another one"
        )
    if ended.returncode:
        raise RuntimeError(f"a text could not be tokenized: {ended.stderr.decode(errors='replace')[-2000:]}")
    answer = Answer(**json.loads(ended.stdout))
    if answer.refused is not None:
        raise UnprocessableError(answer.refused)
    return answer


def main() -> None:
    given = json.loads(sys.stdin.buffer.read())
    request = Request(**given)
    resource.setrlimit(resource.RLIMIT_AS, (request.most_bytes, request.most_bytes))
    seconds = _processor_seconds(request)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        answer = _tokenized(request)
    except UnprocessableError as error:
        answer = Answer(refused=str(error))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    sys.stdout.write(json.dumps(asdict(answer)))


def _tokenized(request: Request) -> Answer:
    ranges = {split: ByteRange(Path(request.text), start, stop) for split, (start, stop) in request.ranges.items()}
    folder, stored = Path(request.folder), Path(request.tokenizer)
    if request.vocabulary_size is None:
        tokenizer = SubwordTokenizer.read(stored)
    else:
        tokenizer = SubwordTokenizer.trained(_sample(ranges["training"]), request.vocabulary_size)
        stored.write_text(tokenizer.written(), "utf-8")
    for split, text in ranges.items():
        tokens.write(folder / split, tokenizer.encode(utf8.pieces(text)), tokenizer.vocabulary_size)
    symbols = [tokenizer.symbol(token)[:SYMBOL_CHARACTERS] for token in range(tokenizer.vocabulary_size)]
    (folder / "symbols.json").write_text(json.dumps(symbols), "utf-8")
    gives_back = all(tokenizer.gives_back(ranges[split]) for split in ("training", "validation"))
    return Answer(tokenizer.vocabulary_size, gives_back)


def _sample(text: ByteRange) -> islice[str]:
    """Of a long text every second piece, or every third, and so on: what is frequent is known from fewer."""
    every = max(1, -(-len(text) // MOST_TRAINING_BYTES))
    return islice(utf8.pieces(text), 0, None, every)


def _processor_seconds(request: Request) -> int:
    size = sum(stop - start for start, stop in request.ranges.values())
    return PROCESSOR_SECONDS + PROCESSOR_SECONDS_PER_MB * size // 1_000_000


if __name__ == "__main__":
    main()
