"""The ceiling of scheduling.py: how often a FastAPI route that does nothing can be asked on the same machine.

A trial costs two requests, so half of it is what no service of this kind can exceed there, whatever is behind it.
"""

import json
import multiprocessing
import socket
import time
from http.client import HTTPConnection
from typing import Any

from benchmarks.support.processes import free_port

BODY = json.dumps({"worker": "0" * 26})


def requests_per_second(clients: int, seconds: float) -> float:
    """Of so many processes with a keep-alive connection each, against one process with uvicorn and one bare route."""
    context = multiprocessing.get_context("spawn")
    port = free_port()
    server = context.Process(target=_serve, args=(port,), daemon=True)
    server.start()
    try:
        _wait_for(port)
        barrier, results = context.Barrier(clients), context.Queue()
        processes = [context.Process(target=_ask, args=(port, seconds, barrier, results)) for _ in range(clients)]
        for process in processes:
            process.start()
        rates = [results.get(timeout=seconds + 120) for _ in processes]
        for process in processes:
            process.join()
    finally:
        server.terminate()
        server.join()
    return sum(rates)


def _serve(port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Asked(BaseModel):
        worker: str

    app = FastAPI()

    @app.post("/")
    async def answer(asked: Asked) -> Asked:  # pyright: ignore[reportUnusedFunction]
        return asked

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the bare route did not start")


def _ask(port: int, seconds: float, barrier: Any, results: Any) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    barrier.wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        connection.request("POST", "/", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        count += 1
    results.put(count / (time.perf_counter() - started))
