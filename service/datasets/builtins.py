"""The datasets that every installation has: `python-topics` and `digits`. Neither is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
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
from service.datasets.texts import read_text
from service.settings import Settings

DIGITS_FRACTIONS = Fractions(validation=0.2)


def python_topics(settings: Settings) -> tuple[Content, int]:
    """The English of the running Python's own help, as bytes, and its size. It differs a little between releases."""
    with tempfile.NamedTemporaryFile(dir=datasets.uploads_folder(settings)) as file:
        size_bytes = file.write("\n".join(topics[topic] for topic in sorted(topics)).encode())
        file.flush()
        return read_text(Path(file.name), "byte", Fractions(validation=0.1)), size_bytes


def digits(settings: Settings) -> tuple[Content, int]:
    """scikit-learn's handwritten digits and their size: 1,797 images of 8×8 as 64 tokens of 17 greys, 10 classes.

    Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), of which it is the test split.
    """
    # It takes a second to import, and is needed once in an installation's life.
    from sklearn.datasets import load_digits

    pixels, labels = (np.asarray(each, np.int32) for each in load_digits(return_X_y=True))
    return labelled_content(LabelledRows(pixels, labels), DIGITS_FRACTIONS), pixels.size + labels.size


BUILTINS: dict[str, Callable[[Settings], tuple[Content, int]]] = {"python-topics": python_topics, "digits": digits}


def register_builtins(database: Database, settings: Settings) -> None:
    """Register what is not there yet, and put back files that were lost. Called at every start.

    What was registered first stays, also where a newer release of its source has other data.
    """
    for name, make in BUILTINS.items():
        known = database.read(lambda session, name=name: _stored(session, name))
        if known is not None and is_stored(settings.data_dir, *known):
            continue
        content, size_bytes = make(settings)
        if known is None:
            datasets.register(database, settings, content, name=name, size_bytes=size_bytes, builtin=True)
        elif content_hash(content) == known[0]:
            store(settings.data_dir, known[0], content)


def _stored(session: Session, name: str) -> tuple[str, dict[str, StoredSplit]] | None:
    row = datasets.find(session, name)
    return None if row is None else (row.sha256, row.parts)
