"""Every answer that can be read from a service, as a text: status, headers, body."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from httpx2 import Response

from service.routes import login, pages, sweep_pages
from tests.golden.normalising import Normaliser
from tests.golden.world import World

PAGES: tuple[Any, ...] = (pages, sweep_pages, login)
"""The modules whose routes answer with pages."""
UNRECORDED_HEADERS = {"content-length", "date", "x-request-id"}
SWEEPS = ("language", "opinions", "shapes", "sequences", "failing", "paused", "shapes again", "confirmation")

UNREAD_EVENTS = ("paused", "language", "confirmation")
"""The stream of a paused sweep does not end; the others are long, and of the same kinds."""

RECORDED_ELSEWHERE = {"/metrics", "/docs", "/static/{name:path}", "/{path:page}", "/v1/schemas/sweep.json"}
"""Figures of a run, what is made from `/openapi.json`, files of the repository (as the schema), and what is no page."""

_TEXTS = ("text/", "application/yaml", "image/svg")
_EVENT_DATA = re.compile(r"(?<=^data: )\{.*\}$", re.MULTILINE)

LINE = 160

BY_SWEEP = (
    "",
    "/trials?page_size=5",
    "/trials?state=complete&page_size=2",
    "/trials/0",
    "/leaderboard?page_size=5",
    "/leaderboard?format=csv",
    "/leaderboard?sort=-latency_ms_p50&page_size=3",
    "/front",
    "/recommendation",
    "/report?format=markdown",
    "/report?format=html",
    "/hypervolume",
    "/importance",
    "/confirmations",
    "/events",
)
"""Below /v1/sweeps/{sweep}: asked of every sweep."""

OF_LANGUAGE = (
    "/constraints",
    "/leaderboard?where=num_layers%3D2",
    "/leaderboard?feasible=false",
    "/leaderboard?on_front=true&format=csv",
    "/columns?name=latency_ms_p50&name=num_layers",
    "/tradeoff?x=latency_ms_p50&y=validation_loss",
    "/effect?parameter=num_layers&metric=validation_loss",
    "/recommendation?prefer=latency_ms_p50",
    "/recommendation?weight=latency_ms_p50:1&weight=validation_loss:3",
    "/recommendation?within=validation_loss:5%25",
    "/report?format=json",
)
OF_ALL = (
    "/openapi.json",
    "/healthz",
    "/readyz",
    "/v1/sweeps",
    "/v1/sweeps?state=completed&page_size=2",
    "/v1/sweeps?name=language",
    "/v1/datasets",
    "/v1/layers",
    "/v1/presets",
    "/v1/checkpoints",
    "/v1/checkpoints/nothing",
    "/v1/checkpoints/nothing/weights",
    "/v1/targets",
    "/v1/targets/model?target=onnxruntime 1.32.0 on Test CPU",
    "/v1/workers",
    "/v1/workers/nothing",
    "/v1/queue",
    "/v1/tokens",
    "/v1/projects",
    "/v1/audit",
    "/v1/whoami",
    "/v1/webhooks",
    "/v1/nothing",
    "/v1/sweeps/nothing",
    "/v1/trials/nothing",
    "/v1/datasets/nothing",
    "/v1/datasets/python-topics/tokenizer",
    f"/v1/uploads/{'0' * 64}",
    "/v1/sweeps?page_size=0",
    "/v1/sweeps?sort=nothing",
    "/",
    "/?state=completed",
    "/datasets",
    "/layers",
    "/workers",
    "/new",
    "/new?from=example:digits",
    "/login",
    "/nothing",
    "/sweeps/nothing",
)
PAGES_OF_SWEEPS = ("", "/report", "/compare?trial=0&trial=1", "/trials/0")


def paths(world: World) -> Iterator[tuple[str, str]]:
    """The name of each recording and the path that is asked for."""
    for path in OF_ALL:
        yield path, path
    chosen = ("language", "shapes")
    compared = ["&".join(f"sweep={each}" for each in some) for some in (chosen, [world.ids[name] for name in chosen])]
    yield f"/compare?{compared[0]}", f"/compare?{compared[1]}"
    for sweep in SWEEPS:
        for rest in BY_SWEEP + (OF_LANGUAGE if sweep == "language" else ()):
            if rest != "/events" or sweep not in UNREAD_EVENTS:
                yield f"/v1/sweeps/{sweep}{rest}", f"/v1/sweeps/{world.ids[sweep]}{rest}"
        for rest in PAGES_OF_SWEEPS:
            yield f"/sweeps/{sweep}{rest}", f"/sweeps/{world.ids[sweep]}{rest}"
    for name, identifier in world.ids.items():
        if name.startswith("dataset "):
            dataset = name.removeprefix("dataset ")
            yield f"/v1/datasets/{dataset}", f"/v1/datasets/{dataset}"
            yield f"/datasets/{dataset}", f"/datasets/{dataset}"
            for part in ("training", "validation"):
                yield f"/v1/datasets/{dataset}/content?part={part}", f"/v1/datasets/{identifier}/content?part={part}"
    front = world.client.get(f"/v1/sweeps/{world.ids['language']}/leaderboard").json()["items"][0]["trial"]
    yield "/trials/front", f"/trials/{front}"
    for rest in ("", "/artifacts", "/artifacts/model.onnx", "/artifacts/nothing", "/transformers", "/transformers.zip"):
        yield f"/v1/trials/front{rest}", f"/v1/trials/{front}{rest}"
    yield "/v1/workers/worker-1", f"/v1/workers/{world.ids['worker-1']}"
    for rest in ("", "/deliveries"):
        yield f"/v1/webhooks/webhook{rest}", f"/v1/webhooks/{world.ids['webhook']}{rest}"
    yield "/v1/sweeps/opinions/events?after=3", f"/v1/sweeps/{world.ids['opinions']}/events?after=3"
    lease = f"/v1/leases/{world.ids['trial language/0']}/1"
    for rest in ("test", "training-state"):
        yield f"/v1/leases/ended/1/{rest}", f"{lease}/{rest}"


def read(world: World) -> dict[str, str]:
    """File name of each recording -> the answer as a text."""
    normaliser = Normaliser(world.names)
    return {
        file_name(name): shown(name, world.client.get(path, follow_redirects=False), normaliser)
        for name, path in paths(world)
    }


def of(world: World, name: str) -> str:
    """The answer that is recorded under this name."""
    return shown(name, world.client.get(dict(paths(world))[name], follow_redirects=False), Normaliser(world.names))


def file_name(name: str) -> str:
    """A path and its query as the name of a file."""
    stem = re.sub(r"[^\w.=-]+", "_", name.strip("/")) or "root"
    return f"{stem}.txt"


def shown(name: str, answer: Response, normaliser: Normaliser) -> str:
    """An answer as people read it: what was asked, the status, the headers, the body."""
    kind = answer.headers.get("content-type", "")
    if kind.startswith(("application/json", "application/problem+json")):
        body = normaliser.text(laid_out(json.loads(answer.text)))
    elif kind.startswith("text/event-stream"):
        body = normaliser.text(_EVENT_DATA.sub(_by_name, answer.text))
    elif kind.startswith("text/html"):
        body = normaliser.text(answer.text).replace("><", ">\n<")
    elif kind.startswith(_TEXTS):
        body = normaliser.text(answer.text)
    else:
        digest = hashlib.sha256(answer.content).hexdigest()
        body = f"{len(answer.content)} bytes, sha256 {digest}" if answer.content else ""
    headers = [
        normaliser.text(f"{key}: {value}") for key, value in answer.headers.items() if key not in UNRECORDED_HEADERS
    ]
    return "\n".join([f"GET {name}", str(answer.status_code), *sorted(headers), "", body])


def laid_out(value: Any, indent: str = "") -> str:
    """JSON with a member a line, where it does not fit in one. Counts are sorted: each database has its own order."""
    if isinstance(value, dict) and isinstance(value.get("counts"), dict):
        value = {**value, "counts": dict(sorted(value["counts"].items()))}
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= LINE or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, list):
        members = [laid_out(each, deeper) for each in value]
    else:
        members = [f"{json.dumps(key, ensure_ascii=False)}: {laid_out(each, deeper)}" for key, each in value.items()]
    opens, closes = "[]" if isinstance(value, list) else "{}"
    return f"{opens}\n" + ",\n".join(deeper + member for member in members) + f"\n{indent}{closes}"


def _by_name(found: re.Match[str]) -> str:
    return json.dumps(json.loads(found.group()), sort_keys=True)


def templates(world: World) -> set[str]:
    """The paths of all GET operations and pages, with their parameters in braces."""
    described = world.client.get("/openapi.json").json()["paths"]
    routes = [route for module in PAGES for route in module.router.routes]
    shown_pages = {route.path for route in routes if "GET" in route.methods}
    return {path for path, operations in described.items() if "get" in operations} | shown_pages
