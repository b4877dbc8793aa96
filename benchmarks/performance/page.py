"""The page of a sweep with 100,000 trials: its first view, each of its requests, and the browser's memory.

The sweep is generated through the ordinary tables (benchmarks/support/generated_sweep.py), the service is the real one,
the browser is headless Chromium. Each kind of request is sent many times with other parameters each time, so that few
answers come from what was calculated before: once as of an ended sweep, once with a trial that ends before every tenth
request, as while a sweep runs. Beside the time of each request stands the processor time that the service took for it:
on a machine that does nothing else the two are about the same, on a busy one only the second says much.

    python -m benchmarks.performance.page [--trials 100000] [--requests 200] [--folder DATA] [--out FILE.json]

`--folder` keeps the generated sweep for the next run. Chromium is looked for as the browser tests do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.support import generated_sweep
from benchmarks.support.processes import machine, running_service
from service.app import prepare
from service.database.sessions import Database
from service.settings import Settings
from tests.browser.chromium import CHROMIUM

GOALS = {"first_view_ms": 1000, "request_ms_p99": 100, "browser_mb": 300}
MIB = 2**20
TRIAL_EVERY = 10
VIEWS = 5
OBJECTIVES = ("latency_ms_p50", "memory_bytes", "validation_loss")
METRICS = (*OBJECTIVES, "latency_ms_p99", "parameter_count", "generalization_gap", "train_seconds", "bits_per_byte")
PARAMETERS = ("num_layers", "hidden_size", "mlp.kind", "norm.kind", "norm.eps", "training.learning_rate")

Kind = Callable[["Sweep"], Iterator[tuple[str, dict[str, str]]]]
"""Endless requests of one kind: path and headers."""


class Sweep:
    """The generated sweep of a running service, and what may be asked of it."""

    def __init__(self, url: str, sweep_id: str, seed: int = 0) -> None:
        self.url, self.id, self.source = url, sweep_id, random.Random(seed)
        board = httpx2.get(f"{url}/v1/sweeps/{sweep_id}/leaderboard?sort=-number&page_size=200", timeout=60).json()
        self.trials = [row["trial"] for row in board["items"]]
        self.numbers = [row["number"] for row in board["items"]]

    def part(self, name: str, queries: Iterator[list[tuple[str, str]]]) -> Iterator[tuple[str, dict[str, str]]]:
        """Requests of htmx for one part of the sweep's page."""
        for query in queries:
            yield f"/sweeps/{self.id}?{urlencode(query)}", {"HX-Request": "true", "HX-Target": f"div#{name}"}

    def api(self, path: str, queries: Iterator[list[tuple[str, str]]]) -> Iterator[tuple[str, dict[str, str]]]:
        for query in queries:
            yield f"/v1/sweeps/{self.id}/{path}?{urlencode(query)}", {}


def _sorts(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    for name in itertools.cycle((*METRICS, *PARAMETERS, "number", "rank")):
        yield [("sort", sweep.source.choice(["", "-"]) + name)]


def _filters(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    while True:
        latency, kind = 1 + 4 * sweep.source.random(), sweep.source.choice(["MLP", "GatedMLP", "FusedGatedMLP"])
        yield [("state", "complete"), ("feasible", "true"), ("where", f"latency_ms_p50<={latency:.4f}")]
        yield [("where", f"mlp.kind={kind}"), ("where", f"validation_loss<={1.5 + sweep.source.random():.4f}")]
        yield [("on_front", "true"), ("sort", sweep.source.choice(METRICS))]
        yield [("state", sweep.source.choice(["failed", "pruned", "infeasible"]))]


def _pages(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    """On from page to page of the leaderboard, each time of another order."""
    for sort in itertools.cycle(METRICS):
        token = None
        for _ in range(5):
            query = [("sort", sort), *([("page_token", token)] if token else [])]
            address = f"{sweep.url}/v1/sweeps/{sweep.id}/leaderboard?{urlencode(query)}"
            token = httpx2.get(address, timeout=60).json()["next_page_token"]
            yield [("sort", sort), ("page_token", token)]


def _pairs(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    for x, y in itertools.cycle(itertools.permutations(METRICS, 2)):
        yield [("x", x), ("y", y)]


def _effects(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    for metric, parameter in itertools.cycle(itertools.product(METRICS, PARAMETERS)):
        yield [("metric", metric), ("parameter", parameter)]


def _plain(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    return itertools.repeat([])


def _axes(sweep: Sweep) -> Iterator[list[tuple[str, str]]]:
    names = [*PARAMETERS, *OBJECTIVES]
    while True:
        yield [("name", name) for name in sweep.source.sample(names, 7)]


def _comparisons(sweep: Sweep) -> Iterator[tuple[str, dict[str, str]]]:
    while True:
        chosen = [("trial", str(number)) for number in sweep.source.sample(sweep.numbers, 4)]
        yield f"/sweeps/{sweep.id}/compare?{urlencode([*chosen, ('differing', 'true')])}", {}


KINDS: dict[str, Kind] = {
    "the whole page": lambda sweep: ((f"/sweeps/{sweep.id}", {}) for _ in itertools.count()),
    "leaderboard: sort": lambda sweep: sweep.part("sweep-board", _sorts(sweep)),
    "leaderboard: filter": lambda sweep: sweep.part("sweep-board", _filters(sweep)),
    "leaderboard: page on": lambda sweep: sweep.part("sweep-board", _pages(sweep)),
    "live: progress": lambda sweep: sweep.part("sweep-live", _plain(sweep)),
    "live: results": lambda sweep: sweep.part("sweep-results", _plain(sweep)),
    "trade-off of two objectives": lambda sweep: sweep.api("tradeoff", _pairs(sweep)),
    "importance": lambda sweep: sweep.api("importance", _plain(sweep)),
    "effect of a parameter": lambda sweep: sweep.api("effect", _effects(sweep)),
    "hypervolume": lambda sweep: sweep.api("hypervolume", _plain(sweep)),
    "parallel coordinates": lambda sweep: sweep.api("columns", _axes(sweep)),
    "a trial": lambda sweep: ((f"/trials/{trial}", {}) for trial in itertools.cycle(sweep.trials)),
    "compare four trials": _comparisons,
    "list of sweeps": lambda sweep: (("/", {}) for _ in itertools.count()),
    "API: leaderboard": lambda sweep: sweep.api("leaderboard", _sorts(sweep)),
    "API: front": lambda sweep: sweep.api("front", _plain(sweep)),
    "API: recommendation": lambda sweep: sweep.api("recommendation", _plain(sweep)),
}


def percentiles(values: list[float]) -> dict[str, float]:
    """The middle of these, and what one in a hundred is above."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p99": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 1),
    }


def service_process() -> int:
    """The process of the service, which is a child of this one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and b"serve" in words:
            return int(folder.name)
    raise RuntimeError("the service does not run")


def processor_ms(process: int) -> float:
    """Milliseconds that all threads of a process have run so far."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def measure_requests(sweep: Sweep, count: int, before: Callable[[int], None]) -> dict[str, dict[str, float]]:
    """Milliseconds of `count` requests of each kind, the first apart; `before` is called with each one's number."""
    found: dict[str, dict[str, float]] = {}
    numbers, service = itertools.count(), service_process()
    with httpx2.Client(base_url=sweep.url, timeout=60) as client:
        for kind, make in KINDS.items():
            times: list[float] = []
            processor: list[float] = []
            for path, headers in itertools.islice(make(sweep), count + 1):
                before(next(numbers))
                used, began = processor_ms(service), time.perf_counter()
                answer = client.get(path, headers=headers)
                times.append(1000 * (time.perf_counter() - began))
                processor.append(processor_ms(service) - used)
                if answer.status_code != 200:
                    raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:500]}")
            found[kind] = {
                "first_ms": round(times[0], 1),
                **{f"{name}_ms": value for name, value in percentiles(times[1:]).items()},
                **{f"{name}_processor_ms": value for name, value in percentiles(processor[1:]).items()},
                "bytes": len(answer.content),
            }
            print(f"{kind:32s} {found[kind]}", file=sys.stderr)
    return found


def view(browser: Browser, sweep: Sweep) -> dict[str, float]:
    """A view of the page in a fresh profile: milliseconds from the navigation on, and what came over the network."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{sweep.url}/sweeps/{sweep.id}")
    page.locator("#sweep-board tbody tr").first.wait_for()
    page.locator("#picture-tradeoff canvas").first.wait_for()
    page.wait_for_load_state("networkidle")
    found = page.evaluate(
        """() => new Promise((resolve) => new PerformanceObserver((list) => {
          const page = performance.getEntriesByType("navigation")[0];
          const resources = performance.getEntriesByType("resource");
          const answers = resources.filter((each) => each.name.includes("/v1/")).map((each) => each.responseEnd);
          resolve({
            answered_ms: page.responseEnd,
            first_paint_ms: performance.getEntriesByName("first-contentful-paint")[0].startTime,
            largest_paint_ms: list.getEntries().at(-1).startTime,
            pictures_answered_ms: Math.max(...answers),
            kilobytes: [page, ...resources].reduce((sum, each) => sum + each.transferSize, 0) / 1000,
          });
        }).observe({type: "largest-contentful-paint", buffered: true}))"""
    )
    page.close()
    return {name: round(value, 1) for name, value in found.items()}


def use(page: Page, sweep: Sweep, rounds: int) -> dict[str, dict[str, float]]:
    """Work with the page as a person does; the milliseconds of each request as the browser saw them, by kind."""
    times: dict[str, list[float]] = {}

    def note(request: Any) -> None:
        path = request.url.removeprefix(sweep.url).partition("?")[0].replace(sweep.id, "ID")
        path = "/trials/ID" if path.startswith("/trials/") else path
        if not path.startswith("/static/") and request.timing["responseEnd"] > 0:
            part = request.headers.get("hx-target", "").partition("#")[2]
            kind = f"{path} {part}".strip()
            times.setdefault(kind, []).append(request.timing["responseEnd"] - request.timing["requestStart"])

    page.on("requestfinished", note)
    board = page.locator("#sweep-board")

    def settle(action: Callable[[], object]) -> None:
        with page.expect_response(lambda answer: sweep.id in answer.url):
            action()
        page.wait_for_load_state("networkidle")

    page.goto(f"{sweep.url}/sweeps/{sweep.id}")
    page.wait_for_load_state("networkidle")
    for number in range(rounds):
        metrics = sweep.source.sample(OBJECTIVES, 2)
        for axis, metric in zip(("x", "y"), metrics, strict=True):
            if page.locator(f"#axis-{axis}").input_value() != metric:
                settle(lambda axis=axis, metric=metric: page.locator(f"#axis-{axis}").select_option(metric))
        heads = board.locator("thead a")
        settle(heads.nth(number % heads.count()).click)
        settle(lambda: page.locator("#filter-state").select_option("complete"))
        settle(board.locator("a[rel=next]").click)
        settle(lambda: page.locator("#filter-state").select_option(""))
        for name in ("effects", "hypervolume", "parallel", "importance"):
            settle(page.locator(f"[data-show={name}]").click)
        if number % 3 == 2:
            board.locator("tbody th a").first.click()
            page.wait_for_load_state("networkidle")
            page.go_back()
            page.wait_for_load_state("networkidle")
    return {
        kind: {"requests": len(each), **{f"{name}_ms": value for name, value in percentiles(each).items()}}
        for kind, each in sorted(times.items())
    }


def memory(browser: Browser, page: Page) -> dict[str, float]:
    """Megabytes that the page takes: its heap, its process, and all of the browser's (what they share by its share)."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    sizes = {f"{each['type']} {each['id']}": _proportional_bytes(each["id"]) for each in processes}
    renderers = [size for name, size in sizes.items() if name.startswith("renderer")]
    return {
        "heap_mb": round(metrics["JSHeapUsedSize"] / MIB, 1),
        "largest_renderer_mb": round(max(renderers) / MIB, 1),
        "all_processes_mb": round(sum(sizes.values()) / MIB, 1),
    }


def _proportional_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def in_browser(sweep: Sweep, rounds: int) -> dict[str, Any]:
    """First views, use, and memory after it."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        views = [view(browser, sweep) for _ in range(VIEWS)]
        empty = browser.new_page()
        nothing = memory(browser, empty)
        empty.close()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        requests = use(page, sweep, rounds)
        found = memory(browser, page)
        browser.close()
    return {"views": views, "requests": requests, "memory": found, "memory_of_an_empty_page": nothing}


def generate(folder: Path, trials: int) -> str:
    """The id of the generated sweep in this folder, which is filled if it is empty."""
    kept = folder / f"sweep-{trials}"
    if kept.exists():
        return kept.read_text()
    settings = Settings(data_dir=folder / "data", database_url="")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database_url)
    prepare(database, settings)
    sweep_id = generated_sweep.generate(database, trials)
    database.close()
    kept.write_text(sweep_id)
    return sweep_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=200, help="of each kind")
    parser.add_argument("--rounds", type=int, default=15, help="of work with the page in the browser")
    parser.add_argument("--folder", type=Path, help="keep the generated sweep here")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        sweep_id = generate(folder, given.trials)
        database = Database(Settings(data_dir=folder / "data", database_url="").database_url)
        # Of a token there may be 500 requests a second; here one client sends as fast as it can.
        with running_service(folder, {"LAYERSWEEP_REQUESTS_PER_SECOND": "100000"}) as url:
            used, began = processor_ms(service_process()), time.perf_counter()
            httpx2.get(f"{url}/sweeps/{sweep_id}", timeout=60).raise_for_status()
            after_start = 1000 * (time.perf_counter() - began)
            after_start_processor = processor_ms(service_process()) - used
            sweep = Sweep(url, sweep_id)
            browsed = in_browser(sweep, given.rounds)
            ended = measure_requests(sweep, given.requests, lambda number: None)

            def end_a_trial(number: int) -> None:
                if number % TRIAL_EVERY == 0:
                    generated_sweep.end_one_more(database, sweep_id)

            live = measure_requests(sweep, given.requests, end_a_trial)
        database.close()
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.performance.page", *sys.argv[1:]]),
        "machine": machine(),
        "trials": given.trials,
        "requests_of_each_kind": given.requests,
        "goals": GOALS,
        "page_after_service_start_ms": round(after_start, 1),
        "page_after_service_start_processor_ms": round(after_start_processor, 1),
        "browser": browsed,
        "requests_of_an_ended_sweep": ended,
        "requests_while_trials_end": live,
    }
    text = json.dumps(result, indent=1)
    if given.out:
        given.out.write_text(text + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
