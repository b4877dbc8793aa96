"""A child that echoes, hangs, dies or shouts as it is asked: `python -m`, from the repository's root."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from workers.engine.protocol import Progress, RequestError, serve


def echo(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"said": request["text"], "environment": dict(os.environ)}


def say(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"pid": os.getpid()}


def count(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for number in range(request["to"]):
        progress({"number": number})
    return {}


def hang(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    progress({request.get("says", "begun"): True})
    time.sleep(600)
    return {}


def spawn(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"pid": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid}


def die(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    sys.stderr.write("a last word\n")
    sys.stderr.flush()
    os.kill(os.getpid(), request["signal"])
    time.sleep(600)
    return {}


def leave(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    os._exit(request["status"])


def shout(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    sys.stdout.write("x" * request["bytes"] + "the end")
    sys.stdout.flush()
    return {}


def refuse(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    raise RequestError("build", "this cannot be built")


if __name__ == "__main__":
    verbs = (echo, say, count, hang, spawn, die, leave, shout, refuse)
    serve({verb.__name__: verb for verb in verbs}, int(sys.argv[-1]))
