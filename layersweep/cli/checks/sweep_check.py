"""`layersweep sweep check`: build points of a sweep's space on this machine, before any GPU time is spent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.text import Text

from layersweep import documents
from layersweep.cli.common import (
    EXIT_REFUSED,
    SERVER_DEFAULT,
    AsJson,
    File,
    Server,
    connect,
    err,
    out,
    part_of_product,
    print_json,
)
from layersweep.display import units
from layersweep.display.listings import Listing
from layersweep.errors import InvalidUsageError, ResponseError, UnreachableError
from layersweep.files import name_of
from layersweep.records.checks import SpaceCheckReport


def check(
    file: File,
    target: Annotated[str, typer.Option(help="The runtime whose builder is tried.")] = "tensorrt_rtx",
    compute_capability: Annotated[
        float | None, typer.Option(help="Of the GPU to build for, as 8.9; tensorrt_rtx needs none here for it.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=10_000, help="Points to try; all of a space with fewer.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    engine_python: Annotated[
        str | None,
        typer.Option(envvar="LAYERSWEEP_ENGINE_PYTHON", help="Interpreter of the engine child; default: this one."),
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Build points of a sweep's space here, before any GPU time is spent; exit 1 where none builds.

    A service is asked about a dataset that was uploaded to it, and about nothing else.
    """
    tool = part_of_product("workers.space_check", "worker")
    space = _read_space(file, server)
    try:
        checking = tool.SpaceCheck(target, compute_capability=compute_capability, engine_python=engine_python)
    except tool.NoBuilderError as problem:
        raise InvalidUsageError(f"{problem}. `layersweep worker --doctor` says what to install") from None
    with contextlib.closing(checking):
        sample = tool.sample(space, samples, seed)
        steps = checking.findings(space, sample.points)
        # On the error stream: the standard output is for the answer.
        findings = list(track(steps, "building", len(sample.points), console=err, transient=True))
    found: SpaceCheckReport = tool.report(sample, findings, checking.capabilities)
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(0 if found["outcomes"].get("builds") else EXIT_REFUSED)


def _read_space(file: Path, server: str) -> Any:
    """The space of a document, read here. Raises InvalidDocumentError as the service would, with every problem."""
    reader, errors = (part_of_product(name, "service") for name in ("service.sweeps.documents", "service.errors"))
    body, content_type = documents.read(file)
    try:
        document = reader.read(body, content_type)
        dataset = _dataset(document.get("dataset"), server)
        try:
            return part_of_product("workers.space_check", "worker").read_space(document, dataset)
        except part_of_product("layers.problems", "worker").DocumentError as problem:
            raise reader.invalid(problem) from problem
    except errors.ServiceError as problem:
        raise ResponseError.of(problem.status, problem.body(name_of(file))) from problem


def _dataset(name: object, server: str) -> Mapping[str, object] | None:
    """What is known of the dataset that a document names: of a built-in one here, of others by the service."""
    built_in = part_of_product("layers.dataset_facts", "worker").BUILT_IN
    if not isinstance(name, str):
        return None
    if name in built_in:
        return built_in[name]
    try:
        with connect(server) as client:
            return client.dataset(name)
    except UnreachableError as problem:
        raise UnreachableError(
            f"what the dataset {name!r} holds is known to the service that it was uploaded to (built in are "
            f"{', '.join(built_in)}): {problem}"
        ) from problem


def _print(found: SpaceCheckReport) -> None:
    about, outcomes, points = found["target"], found["outcomes"], found["points"]
    of = "the whole space" if found["whole_space"] else "a sample"
    share = f"{outcomes.get('builds', 0)} of {units.plural(points, 'point')} ({of}) build"
    out.print(Text(f"{share} with {about['runtime']} {about['version']} for {about['device_model']}."))
    if found["break_a_rule"]:
        out.print(Text(f"{found['break_a_rule']} more break a rule: no trial will have them.", style="dim"))
    if found["build_seconds"] and found["engine_bytes"]:
        (fast, slow), (small, large) = found["build_seconds"], found["engine_bytes"]
        sizes = f"{units.bytes_(small)} to {units.bytes_(large)}"
        out.print(Text(f"A build took {fast:.1f} to {slow:.1f} s; engines of {sizes}."))
    if found["reasons"]:
        columns = ("points", "outcome", "why not", "all of them have")
        table = Listing(*columns, whole=("outcome",), right=("points",))
        for group in found["reasons"]:
            shared = ", ".join(f"{name}={value}" for name, value in group["shared"].items())
            table.add_row(str(group["points"]), group["outcome"], Text(group["reason"]), Text(shared))
        out.print(table)
