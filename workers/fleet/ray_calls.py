"""Every call of Ray, those whose interface its makers call unstable too. No other file imports Ray.

Stable: `init`, `remote`, `get_actor`, `kill`, `nodes`, named and detached actors, `get_runtime_context`. Unstable, and
tried with the version in docs/dependencies.md: `ray.autoscaler.sdk.request_resources` (developer API), and what
`ray._private.state` says of actors and of nodes that are being drained (private).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from workers.fleet.hosted_worker import HostedWorker, share_of_machine, worker_command
from workers.fleet.messages import Member, WorkerOrder

ALIVE, DEAD = "ALIVE", "DEAD"
"""Of an actor's states."""


class Resources(NamedTuple):
    """What one worker is given of a machine."""

    cpus: float
    gpus: float
    accelerator: str | None
    """Ray's name of a GPU model, as H100; None: whichever."""

    def bundle(self) -> dict[str, float]:
        """As the autoscaler has it."""
        found = {"CPU": self.cpus, "GPU": self.gpus}
        if self.accelerator is not None:
            found[f"accelerator_type:{self.accelerator}"] = 0.001
        return {name: count for name, count in found.items() if count}


def connect(address: str, namespace: str) -> None:
    """Become a driver of the cluster. Raises ConnectionError if there is none at the address."""
    _ray().init(
        address=address,
        namespace=namespace,
        log_to_driver=False,
        logging_level="warning",
    )


def members(namespace: str) -> list[Member]:
    """The actors of the namespace that are there or are to come."""
    listed = import_module("ray.util").list_named_actors(all_namespaces=True)
    named = {each["name"] for each in listed if each["namespace"] == namespace}
    state = import_module("ray._private.state")
    draining = set(state.state.get_draining_nodes())
    return [
        {
            "name": actor["Name"].removeprefix(f"{namespace}-"),
            "state": actor["State"],
            "is_leaving": actor["Address"]["NodeID"] in draining,
        }
        for actor in state.actors().values()
        # The table keeps dead ones, and does not tell namespaces: an actor's name begins with its fleet's.
        if actor["Name"] in named and actor["State"] != DEAD
    ]


def start(name: str, namespace: str, order: WorkerOrder, resources: Resources) -> None:
    """Start a worker's actor, unless there is one of the name. It waits for a machine with the resources."""
    actor = _ray().remote(WorkerActor)
    actor.options(
        name=f"{namespace}-{name}",
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        **({"accelerator_type": resources.accelerator} if resources.accelerator else {}),
    ).remote(order)


def drain(name: str, namespace: str) -> None:
    """Have a worker give back what it executes and leave. One that has not begun, or is gone, is simply ended."""
    ray = _ray()
    found = next((each for each in members(namespace) if each["name"] == name), None)
    if found is None:
        return
    actor = ray.get_actor(f"{namespace}-{name}", namespace=namespace)
    if found["state"] == ALIVE:
        actor.drain.remote()
    else:
        ray.kill(actor, no_restart=True)


def request_machines(bundles: Sequence[Mapping[str, float]]) -> None:
    """Ask the autoscaler for machines with room for all of these at once; it stays asked for until the next call."""
    import_module("ray.autoscaler.sdk").request_resources(bundles=[dict(bundle) for bundle in bundles])


class WorkerActor:
    """Hosts one `layersweep worker` for as long as it lives, on whatever machine Ray has given it.

    Ray starts it again when its machine is lost. It ends itself when its worker leaves, so that no controller is needed
    for that.
    """

    def __init__(self, order: WorkerOrder) -> None:
        ray = _ray()
        me = ray.get_runtime_context().current_actor
        arguments = order["arguments"]
        if order["shares_machine"]:
            arguments = [*share_of_machine(_gpus_here()), *arguments]
        command = worker_command(arguments)
        self._worker = HostedWorker(command, order["environment"], lambda: ray.kill(me, no_restart=True))

    def drain(self) -> None:
        """Give back what runs, and leave."""
        self._worker.drain()


def _gpus_here() -> int:
    """Of the machine that this actor is on, as the cluster counts them."""
    ray = _ray()
    here = ray.get_runtime_context().get_node_id()
    return round(next((node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == here), 1))


def _ray() -> Any:
    return import_module("ray")
