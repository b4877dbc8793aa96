"""The child of a fleet's controller that speaks to Ray: it may hang or be ended by Ray, and is then started anew.

Ray ends a driver whose cluster it has lost. Verbs:

    members           {}                              -> members: the actors that are there or are to come
    start             {name, order, resources}        -> {}
    drain             {name}                          -> {}
    request_machines  {machines: [resources]}         -> {}; what there is to be room for at once
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from workers.engine.protocol import Handler, Progress, Request, RequestError, Result, serve
from workers.fleet import ray_calls
from workers.fleet.messages import MembersAnswer


class Verbs:
    """The verbs' handlers. The first request connects."""

    def __init__(self, address: str, namespace: str) -> None:
        self._address = address
        self._namespace = namespace
        self._is_connected = False

    def handlers(self) -> dict[str, Handler]:
        verbs: dict[str, Callable[[Request], Result]] = {
            "members": self.members,
            "start": self.start,
            "drain": self.drain,
            "request_machines": self.request_machines,
        }
        return {verb: self._connected(work) for verb, work in verbs.items()}

    def members(self, request: Request) -> MembersAnswer:
        return {"members": ray_calls.members(self._namespace)}

    def start(self, request: Request) -> Result:
        resources = ray_calls.Resources(*request["resources"])
        ray_calls.start(request["name"], self._namespace, request["order"], resources)
        return {}

    def drain(self, request: Request) -> Result:
        ray_calls.drain(request["name"], self._namespace)
        return {}

    def request_machines(self, request: Request) -> Result:
        ray_calls.request_machines([ray_calls.Resources(*each).bundle() for each in request["machines"]])
        return {}

    def _connected(self, work: Callable[[Request], Result]) -> Handler:
        def handle(request: Request, progress: Progress) -> Result:
            if not self._is_connected:
                try:
                    ray_calls.connect(self._address, self._namespace)
                except ImportError as problem:
                    raise RequestError("unsupported", f"Ray cannot be imported: {problem}") from problem
                except ConnectionError as problem:
                    raise RequestError("invalid", f"no Ray cluster answers at {self._address}: {problem}") from problem
                self._is_connected = True
            return work(request)

        return handle


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.fleet.ray_child", description=__doc__)
    parser.add_argument("--address", required=True, help="of the cluster, or auto: the one of this machine")
    parser.add_argument("--namespace", required=True, help="of the actors")
    parser.add_argument("--answers-fd", type=int, required=True, help="descriptor that answers are written to")
    arguments = parser.parse_args()
    serve(Verbs(arguments.address, arguments.namespace).handlers(), arguments.answers_fd)


if __name__ == "__main__":
    main()
