"""A child of a few verbs that speaks the protocol of the engine child: `python -m`, from the repository's root."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from typing import Any

from workers.engine.protocol import Progress, RequestError, serve

_released = threading.Event()


def echo(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"value": request.get("value")}


def noisy(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    os.write(1, b'{"id": 1, "ok": true, "result": "from stdout"}\n')
    os.write(2, b"native warning")
    sys.stdout.write("printed\n")
    subprocess.run([sys.executable, "-c", "print(input())"], stderr=subprocess.DEVNULL, check=False)
    return {}


def count(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for step in range(3):
        progress({"step": step})
    return {"steps": 3}


def wait(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    progress({"waiting": True})
    _released.wait(60)
    return {"released": _released.is_set()}


def release(request: dict[str, Any]) -> dict[str, Any]:
    _released.set()
    return {}


def refuse(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise RequestError(request["kind"], "as asked")


def run_out(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise MemoryError


def crash(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {}[request["value"]]


def not_json(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"value": {"nan": float("nan"), "object": object()}[request["value"]]}


if __name__ == "__main__":
    verbs = [echo, noisy, count, wait, refuse, run_out, crash, not_json]
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers-fd", type=int)
    serve({verb.__name__: verb for verb in verbs}, parser.parse_args().answers_fd, immediate={"release": release})
