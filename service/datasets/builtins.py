"""The datasets that every installation has: `python-topics` and `digits`. Neither is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from sqlalchemy.orm import Session

from service.database.dataset_columns import StoredSplit
from service.database.sessions import Database
from service.datasets import datasets
from service.datasets.content import Content
from service.datasets.labelled import LabelledRows, labelled_content
from service.datasets.splits import Fractions
from service.datasets.stored_splits import content_hash, is_stored, store
from service.datasets.texts.reading import read_text
from service.settings import Settings

DIGITS_FRACTIONS = Fractions(validation=0.2)


def python_topics(scratch: Path) -> tuple[Content, int]:
    """The English of the running Python's own help, as bytes, and its size. It differs a little between releases."""
    path = scratch / "text"
    size_bytes = path.write_bytes("\n".join(topics[topic] for topic in sorted(topics)).encode())
    return read_text(path, "byte", Fractions(validation=0.1), scratch), size_bytes


def digits(scratch: Path) -> tuple[Content, int]:
    """scikit-learn's handwritten digits and their size: 1,797 images of 8×8 as 64 tokens of 17 greys, 10 classes.

    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), of which it is the test split.
    """
    # Of its file alone: to import the library takes a second and a hundred megabytes.
    library = find_spec("sklearn")
    assert library is not None
    assert library.origin is not None
    path = Path(library.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, np.int32, delimiter=",")
    pixels, labels = rows[:, :-1], rows[:, -1]
    return labelled_content(LabelledRows(pixels, labels), DIGITS_FRACTIONS), pixels.size + labels.size


BUILTINS: dict[str, Callable[[Path], tuple[Content, int]]] = {"python-topics": python_topics, "digits": digits}
"""Each makes its content, whose arrays last as long as the folder that it is given, and says its size in bytes."""


def register_builtins(database: Database, settings: Settings) -> None:
    """Register what is not there yet, and put back files that were lost. Called at every start.

    What was registered first stays, also if a newer release of its source has other data. Makes the data folder at the
    first start.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    for name, make in BUILTINS.items():
        known = database.read(lambda session, name=name: _stored(session, name))
        if known is not None and is_stored(settings.data_dir, *known):
            continue
        with tempfile.TemporaryDirectory(dir=datasets.uploads_folder(settings)) as scratch:
            content, size_bytes = make(Path(scratch))
            if known is None:
                datasets.register(database, settings, content, name=name, size_bytes=size_bytes, builtin=True)
            elif content_hash(content) == known[0]:
                store(settings.data_dir, known[0], content)


def _stored(session: Session, name: str) -> tuple[str, dict[str, StoredSplit]] | None:
    row = datasets.find(session, name)
    return None if row is None else (row.sha256, row.parts)
