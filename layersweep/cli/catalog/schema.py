"""`layersweep schema`: the JSON Schema of the sweep document."""

from __future__ import annotations

from importlib.resources import files

import typer

FILE = "sweep.schema.json"
"""In the package: what `make docs` makes of the declarations, since the client ships without them."""


def schema() -> None:
    """Print the JSON Schema of the sweep document, for editors; needs no service."""
    typer.echo(files("layersweep").joinpath(FILE).read_text(encoding="utf-8"), nl=False)
