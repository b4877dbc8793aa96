"""`layersweep fleet ...`: workers on the machines of an engine that runs fleets, as many as the queue needs."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from typing import Annotated

import typer

from layersweep import logs
from layersweep.cli.common import SERVER_DEFAULT, Server, part_of_product
from layersweep.cli.processes import parsed_labels, parsed_slots
from layersweep.errors import InvalidUsageError
from layersweep.transport import TOKEN, BearerToken, base_url

app = typer.Typer(help="Workers on a cluster, as many as the queue needs.", no_args_is_help=True)

WORK_TOKEN = "LAYERSWEEP_WORK_TOKEN"
NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,62}")


@app.callback()
def fleet() -> None:
    """Workers on a cluster, as many as the queue needs."""


@app.command("ray")
def ray(
    server: Server = SERVER_DEFAULT,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="Of the Ray cluster; auto: the one that runs on this machine.")
    ] = "auto",
    max_gpus: Annotated[int, typer.Option(min=0, help="Most workers with a GPU, each with one.")] = 0,
    max_cpu_workers: Annotated[int, typer.Option(min=0, help="Most workers on processors.")] = 0,
    name: Annotated[
        str, typer.Option(help="Of the fleet: Ray's namespace, and the beginning of its workers' names.")
    ] = "layersweep",
    accelerator: Annotated[
        str | None, typer.Option(help="Ray's name of the GPU model that its workers need, as H100; default: any.")
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processors that a worker reserves, and its threads; default: 1 on a CPU, none reserved with a GPU.",
        ),
    ] = None,
    slots: Annotated[str, typer.Option(metavar="N|auto", help="Trials that each worker executes at once.")] = "auto",
    labels: Annotated[str, typer.Option(metavar="KEY=VALUE,…", help="Labels of its workers, as gpu=h100,site=a.")] = "",
    idle_seconds: Annotated[float, typer.Option(min=1, help="How long a worker stays without a trial.")] = 120.0,
) -> None:
    """Keep as many workers on a Ray cluster as the queue needs, between none and the limits.

    LAYERSWEEP_TOKEN needs the scope read, and LAYERSWEEP_WORK_TOKEN, which the workers get, the scope work; without the
    second they get the first. Ctrl-C stops the controller: workers stay until they are idle. With both limits 0 it
    drains what there is.
    """
    form = os.environ.get(logs.VARIABLE) or "text"
    if form not in logs.FORMS:
        raise InvalidUsageError(f"{logs.VARIABLE} is {form!r}: use {' or '.join(logs.FORMS)}")
    if NAME.fullmatch(name) is None:
        raise typer.BadParameter("1 to 63 letters, digits, '-', '_' and '.', the first no '-'", param_hint="--name")
    slot_count, own_labels = parsed_slots(slots), parsed_labels(labels)
    token, work_token = BearerToken.of_environment(), BearerToken.of_environment(WORK_TOKEN, TOKEN)
    controller = part_of_product("workers.fleet.controller", "worker")
    if importlib.util.find_spec("ray") is None:
        raise InvalidUsageError("this command needs 'ray': install it with `pip install -e '.[ray]'` in the checkout")
    plan = part_of_product("workers.fleet.plan", "worker")
    cluster = part_of_product("workers.fleet.ray_cluster", "worker")
    service = part_of_product("workers.service.client", "worker")
    logs.configure(logging.INFO, form)
    status = controller.run(
        service.ServiceClient(base_url(server), token),
        address,
        plan.Fleet(name, {"gpu": max_gpus, "cpu": max_cpu_workers}, own_labels, slot_count),
        cluster.WorkerOptions(
            base_url(server),
            None if work_token is None else work_token.value,
            idle_seconds,
            cpus,
            accelerator,
        ),
    )
    raise typer.Exit(status)
