from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Sweep
from service.events import events
from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import TARGET, add_attempt, add_measurement, add_sweep, add_trial, add_worker, rank


@pytest.fixture
def filled(client: TestClient, services: Services):
    """A sweep with trials in every state."""

    def fill(session: Session):
        worker = add_worker(session, "worker <b>one</b>")
        sweep = add_sweep(session, name="<script>alert(1)</script>", target=TARGET, target_key=TARGET["key"])
        trials = []
        for number in range(6):
            metrics = {
                "latency_ms_p50": 1.0 + number,
                "latency_ms_p99": 1.2 + number,
                "validation_loss": 3.0 - number * number / 10,
                "weights_bytes": 1e6,
                "activation_bytes": 2e5,
                "io_bytes": 1e4,
                "memory_bytes": 1.21e6,
                "generalization_gap": 0.1,
            }
            trials.append(
                add_trial(session, sweep, number, metrics, parameters={"num_layers": number, "mlp.kind": "MLP"})
            )
        trials[5].feasible = False
        trials[5].violations = {"latency_ms_p99 <= 4.0": 2.2}
        rank(session, sweep, trials)
        add_attempt(session, trials[0], worker, log="<i>log</i>")
        add_measurement(session, trials[0], "latency_samples_ms", {"samples_ms": [1.0, 1.01, 1.02, 1.5] * 20})
        add_measurement(session, trials[0], "environment", {"driver": "1.2", "clocks": {"sm_mhz": 1980}})
        broken = add_trial(session, sweep, 6, {}, state="failed", feasible=None, reason="<img src=x onerror=alert(1)>")
        steps = {"step": 10, "steps": 40, "waiting_for": "<b>one that measures"}
        running = add_trial(session, sweep, 7, state="running", phase="train", progress=steps, worker_id=worker.id)
        add_attempt(session, running, worker, ended_at=None, outcome=None)
        events.append(session, sweep.id, "trial.ended", trial_id=trials[0].id, data={"number": 0})
        return {"sweep": sweep.id, "trial": trials[0].id, "failed": broken.id, "running": running.id}

    return services.database.write(fill)


def test_every_page_is_whole_and_within_the_policy(client: TestClient, filled: dict[str, str]) -> None:
    trials = [f"/trials/{filled[name]}" for name in ("trial", "failed", "running")]
    plain = ["/", "/datasets", "/datasets/python-topics", "/layers", "/workers", "/docs"]
    for path in [*plain, *trials, f"/sweeps/{filled['sweep']}"]:
        text = page(client, path)
        assert "<h1>" in text
        assert 'lang="en"' in text


def test_nothing_that_was_sent_in_becomes_markup(client: TestClient, filled: dict[str, str]) -> None:
    for path in (
        "/",
        f"/sweeps/{filled['sweep']}",
        f"/trials/{filled['failed']}",
        f"/trials/{filled['trial']}",
        f"/trials/{filled['running']}",
        "/workers",
    ):
        text = page(client, path)
        for injected in ("<script>alert", "<img src=x", "<i>log", "<b>one"):
            assert injected not in text
    assert "&lt;script&gt;alert(1)" in page(client, "/")


def test_the_list_shows_progress_and_the_best_so_far(client: TestClient, filled: dict[str, str]) -> None:
    text = page(client, "/")
    assert "7 of 20 trials" in text
    assert "1 running" in text
    assert re.search(r"best latency p50</dt><dd>1 ms", text)
    assert re.search(r"best validation loss</dt><dd>1.4 nats", text), "of feasible trials only"
    assert 'data-poll="progress"' in text, "while one goes on"


def test_the_list_is_filtered_by_state_and_name(client: TestClient, services: Services, filled: dict[str, str]) -> None:
    services.database.write(lambda session: add_sweep(session, name="Encoder width", state="completed"))
    assert "Encoder width" in page(client, "/", state="completed")
    assert "Encoder width" in page(client, "/", name="encoder")
    assert "Encoder width" not in page(client, "/", state="active")
    assert "No sweep passes these filters" in page(client, "/", name="decoder")


def test_cards_name_their_projects_where_there_are_several(client: TestClient, services: Services) -> None:
    services.database.write(lambda session: add_sweep(session, name="mine"))
    assert "project default" not in page(client, "/")
    other = services.database.write(lambda session: add_sweep(session, name="theirs", project="vision").id)
    text = page(client, "/")
    assert "project default" in text
    assert "project vision" in text
    assert "project vision" in page(client, f"/sweeps/{other}")


def test_old_sweeps_are_on_further_pages(client: TestClient, services: Services) -> None:
    services.database.write(lambda session: [add_sweep(session, name=f"sweep {number:02}") for number in range(52)])
    first = page(client, "/")
    assert "sweep 51" in first
    assert "sweep 01" not in first
    (older,) = re.findall(r'rel="next" href="(/\?before=[^"]+)"', first)
    assert "sweep 01" in page(client, older)


def test_an_empty_service_says_how_to_begin(client: TestClient) -> None:
    assert "layersweep sweep submit" in page(client, "/")
    for path in ("/", "/workers"):
        assert "<code>layersweep worker --server http://testserver</code>" in page(client, path)


def test_a_sweep_without_trials_says_what_it_waits_for(client: TestClient, services: Services) -> None:
    sweep = services.database.write(lambda session: add_sweep(session, reason="no worker serves it").id)
    text = page(client, f"/sweeps/{sweep}")
    assert "no worker serves it" in text
    assert "No trial yet" in text
    assert "No trial runs: the sweep has no target yet" in text
    assert "The first trial that is complete and keeps every constraint will be shown here" in text


def test_a_sweep_whose_workers_were_upgraded_does_not_claim_that_a_trial_is_about_to_begin(
    client: TestClient, services: Services
) -> None:
    reason = "waiting for a worker with results of version 2"
    row: dict[str, Any] = {"reason": reason, "target": TARGET, "target_key": TARGET["key"]}
    sweep = services.database.write(lambda session: add_sweep(session, **row).id)
    text = page(client, f"/sweeps/{sweep}")
    assert reason in text
    assert "what the sweep waits for stands above" in text
    assert "the next one is claimed in a moment" not in text


def test_the_sweep_s_page_shows_front_recommendation_and_running_trials(
    client: TestClient, filled: dict[str, str]
) -> None:
    text = page(client, f"/sweeps/{filled['sweep']}")
    assert text.count('class="rank first"') == 5
    assert text.count('aria-label="recommended"') == 1
    assert "step 10 of 40" in text
    assert 'aria-current="step">train' in text
    assert "nearest to the ideal point" in text
    assert f'hx-sse:connect="/v1/sweeps/{filled["sweep"]}/events?after=1"' in text
    assert f'href="/v1/sweeps/{filled["sweep"]}/report?format=html"' in text


def rows(text: str):
    return [int(number) for number in re.findall(r'<th scope="row"><a href="/trials/[^"]+">(\d+)</a>', text)]


def test_the_address_holds_sort_filters_and_axes(client: TestClient, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    assert rows(page(client, path)) == [3, 2, 1, 0, 4, 5, 6, 7], "the recommended one, then by its rule"
    assert rows(page(client, path, sort="rank")) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert rows(page(client, path, sort="validation_loss", feasible="true")) == [4, 3, 2, 1, 0]
    assert rows(page(client, path, state="failed")) == [6]
    assert rows(page(client, path, on_front="false", feasible="", state="", x="")) == [5, 6, 7], "as a form sends it"
    text = page(client, path, sort="validation_loss", feasible="true", x="memory_bytes", y="number")
    assert '<option value="memory_bytes" selected>' in text
    assert 'aria-sort="ascending"><a href="' in text
    assert "sort=-validation_loss&amp;feasible=true&amp;x=memory_bytes&amp;y=number" in text, "a click keeps the rest"
    assert f'/v1/sweeps/{filled["sweep"]}/leaderboard?sort=validation_loss&amp;feasible=true&amp;format=csv"' in text


def test_any_metric_or_parameter_filters_the_leaderboard(client: TestClient, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    text = page(client, path, where=["latency_ms_p50<=3", "num_layers>=1"])
    assert rows(text) == [2, 1]
    assert 'aria-label="Remove the filter num_layers&gt;=1"' in text
    added = page(client, path, where="latency_ms_p50<=3", where_name="num_layers", where_operator="=", where_value="2")
    assert rows(added) == [2], "as the form sends it"
    assert "where=latency_ms_p50%3C%3D3&amp;where=num_layers%3D2" in added, "the next click keeps both"
    assert "beauty" in page(client, path, status=422, where="beauty=1")


def heads(text: str):
    board = text[text.index('id="board-scroll"') :]
    return re.findall(r'<th scope="col" class="(?:metric|parameter)[^"]*"[^>]*><a href="[^"]*" title="([^":]+)', board)


def test_columns_are_chosen_and_those_without_a_difference_left_out(client: TestClient, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    usual = heads(page(client, path))
    assert usual[:2] == ["latency_ms_p50", "validation_loss"], "objectives first"
    assert {"num_layers", "mlp.kind"} <= set(usual)
    assert heads(page(client, path, column=["memory_bytes", "mlp.kind"])) == ["memory_bytes", "mlp.kind"]
    complete = page(client, path, state="complete", differing="true")
    assert "mlp.kind" not in heads(complete)
    assert "num_layers" in heads(complete)


def test_a_filter_that_keeps_nothing_says_so(client: TestClient, filled: dict[str, str]) -> None:
    assert "No trial passes these filters" in page(client, f"/sweeps/{filled['sweep']}", state="pruned")


def test_long_leaderboards_are_paged(client: TestClient, services: Services) -> None:
    def fill(session: Session):
        sweep = add_sweep(session)
        for number in range(60):
            add_trial(session, sweep, number)
        return sweep.id

    sweep = services.database.write(fill)
    first = page(client, f"/sweeps/{sweep}")
    assert rows(first) == list(range(50))
    (following,) = re.findall(r'rel="next" href="([^"#]+)', first)
    assert rows(page(client, following.replace("&amp;", "&"))) == list(range(50, 60))


def test_each_live_part_is_what_the_page_holds(client: TestClient, filled: dict[str, str]) -> None:
    parts = [
        (f"/sweeps/{filled['sweep']}", ("sweep-live", "sweep-results", "sweep-board")),
        (f"/trials/{filled['running']}", ("trial",)),
        ("/", ("sweeps",)),
        ("/workers", ("workers",)),
    ]
    for path, names in parts:
        whole = page(client, path)
        for name in names:
            part = page(client, path, part=name)
            assert part.startswith(("<div", "<section"))
            assert f'id="{name}"' in part[:200]
            ids = re.findall(r' id="([\w-]+)"', part)
            assert ids == [each for each in re.findall(r' id="([\w-]+)"', whole) if each in ids]


def test_an_ended_sweep_is_not_watched(client: TestClient, services: Services, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    assert "data-ended" not in page(client, path, part="sweep-live")
    services.database.write(lambda session: setattr(session.get(Sweep, filled["sweep"]), "state", "completed"))
    assert "data-ended" in page(client, path, part="sweep-live")
    assert "hx-sse:connect" not in page(client, path)


def test_a_sweep_is_steered_as_its_state_allows(client: TestClient, services: Services, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"

    def actions():
        return re.findall(rf'data-api="/v1{path}:(\w+)"', page(client, path))

    assert actions() == ["pause", "extend", "cancel"]
    assert client.post(f"/v1{path}:pause").status_code == 200
    assert actions() == ["resume", "extend", "cancel"]
    assert client.post(f"/v1{path}:cancel").status_code == 200
    assert actions() == [], "what was cancelled does not go on"
    assert f'href="/new?from=sweep:{filled["sweep"]}"' in page(client, path)


def test_a_trial_s_page_shows_what_was_learnt(client: TestClient, filled: dict[str, str]) -> None:
    text = page(client, f"/trials/{filled['trial']}")
    for said in (
        "Where the time went",
        'aria-label="Losses by step"',
        'aria-label="Latency samples by value"',
        "weights <strong>977 KiB",
        "generalization gap",
        "clocks.sm_mhz",
        "Whole configuration",
        "&lt;i&gt;log",
    ):
        assert said in text
    failed = page(client, f"/trials/{filled['failed']}")
    assert "No losses were reported" in failed
    running = page(client, f"/trials/{filled['running']}")
    assert f'data-trial="{filled["running"]}"' in running
    assert "hx-sse:connect" not in failed
    assert "step 10 of 40" in running
    assert "waiting for &lt;b&gt;one that measures" in running


def test_a_running_trial_s_page_says_what_is_known_already(client: TestClient, services: Services) -> None:
    def fill(session: Session):
        worker, sweep = add_worker(session), add_sweep(session)
        phases = ("check", "measure", "train", "evaluate")
        made = {
            phase: add_trial(session, sweep, number, {}, state="running", phase=phase, worker_id=worker.id)
            for number, phase in enumerate(phases)
        }
        for trial in made.values():
            add_attempt(session, trial, worker, ended_at=None, outcome=None, log="measured: latency 0.4 ms (p50)")
        made["ended"] = add_trial(session, sweep, len(phases), {}, state="failed", reason="it broke")
        return {name: trial.id for name, trial in made.items()}

    trials = services.database.write(fill)
    texts = {name: page(client, f"/trials/{trial}") for name, trial in trials.items()}
    for name in ("check", "measure"):
        assert "Not measured yet." in texts[name]
    for name in ("train", "evaluate"):
        assert "Not measured" not in texts[name]
        assert "Measured before its training: the log below has the figures" in texts[name]
        assert " open><summary>Log</summary>" in texts[name]
    assert "Not measured." in texts["ended"]


def test_a_dataset_s_page_shows_its_baselines(client: TestClient) -> None:
    text = page(client, "/datasets/python-topics")
    assert "trigram" in text
    assert "Losses to beat" in text


def test_every_parameter_is_on_the_layers_page(client: TestClient) -> None:
    from layers.declarations.model import DECLARATIONS

    text = page(client, "/layers")
    assert all(f"<code>{path}</code>" in text for path in DECLARATIONS)


def test_the_api_is_described_without_anything_from_elsewhere(client: TestClient) -> None:
    text = page(client, "/docs")
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in text
    assert 'id="schema-ProblemDocument"' in text


@pytest.mark.parametrize(
    "path", ["/nothing", "/sweeps/nothing", "/trials/nothing", "/datasets/nothing", "/static/app.py"]
)
def test_what_is_not_there_is_a_page_that_says_so(client: TestClient, path: str) -> None:
    text = page(client, path, status=404)
    assert "Not found" in text
    assert 'href="/"' in text


def test_what_cannot_be_answered_is_a_page_that_says_why(client: TestClient, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    assert "sort by rank" in page(client, path, status=422, sort="beauty")
    assert "is not a metric" in page(client, path, status=422, x="beauty")
    assert "true or false" in page(client, path, status=422, feasible="perhaps")
    assert "before" in page(client, "/", status=422, before="x" * 40)
    assert "choose from active" in page(client, "/", status=422, state="perhaps")
    assert "choose from importance" in page(client, path, status=422, picture="beauty")
    assert "not the number of a trial" in page(client, path, status=422, trial="first")


def test_the_api_s_errors_stay_machine_readable(client: TestClient) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("POST", "/v1/layers", 405), ("PUT", "/", 405)):
        answer = client.request(method, path, headers={"Accept": "text/html"})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


def test_static_files_are_cached_by_their_content_and_are_all_that_is_served(
    client: TestClient, filled: dict[str, str]
) -> None:
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', page(client, "/"))
    assert len(links) == 5
    links += re.findall(r'data-(?:script|echarts)="(/static/[^"]+)"', page(client, f"/sweeps/{filled['sweep']}"))
    assert len(links) == 7
    for link in links:
        answer = client.get(link)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        again = client.get(link, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in (
        "/static/..%2ftemplates%2fbase.html",
        "/static/%2e%2e/rendering.py",
        "/static/base.html",
        "/static/vendor/vendor.json",
        "/static/vendor",
    ):
        assert client.get(path).status_code == 404


def test_the_list_of_sweeps_says_why_one_failed(client: TestClient, services: Services) -> None:
    reason = "all 3 trials failed; the last one: the engine of this shape could not be built"

    def write(session: Session):
        sweep = add_sweep(session, state="failed", reason=reason, counts={"failed": 2, "complete": 1})
        add_trial(session, sweep, 0, {"latency_ms_p50": 1.0, "validation_loss": 2.0})

    services.database.write(write)
    assert reason in page(client, "/"), "also beside a result"


def test_the_leaderboard_shows_what_it_is_sorted_by(client: TestClient, filled: dict[str, str]) -> None:
    path = f"/sweeps/{filled['sweep']}"
    unsorted = page(client, path, part="sweep-board")
    by_gap = page(client, path, part="sweep-board", sort="generalization_gap")
    assert by_gap.count("generalization gap") > unsorted.count("generalization gap")


def test_a_trial_that_generates_shows_its_steps_and_nothing_of_what_is_not_one(
    client: TestClient, services: Services
) -> None:
    bucket = {"capacity": 140, "steps": 32, "latency_ms_p50": 0.7512, "latency_ms_p99": 0.8723}
    odd = [None, 3, {"capacity": "<b>", "steps": 1}, {**bucket, "latency_ms_p50": None}]

    def fill(session: Session):
        sweep = add_sweep(session, target=TARGET, target_key=TARGET["key"])
        metrics = {
            "latency_ms_p50": 1.0,
            "decode_ms_per_token_p50": 0.8125,
            "tokens_per_s": 1230.0,
            "kv_cache_bytes": 4096,
        }
        trial = add_trial(session, sweep, 0, metrics)
        add_measurement(session, trial, "generation", {"prefill": {}, "decode": [*odd, bucket]})
        other = add_trial(session, sweep, 1, {"latency_ms_p50": 1.0})
        add_measurement(session, other, "generation", {"decode": "none"})
        return trial.id, other.id

    trial, other = services.database.write(fill)
    text = page(client, f"/trials/{trial}")
    for shown in ("decode p50", "0.8125 ms", "4 KiB", "steps of a text", "140", "0.7512 ms", "0.8723 ms"):
        assert shown in text, shown
    assert "steps of a text" not in page(client, f"/trials/{other}")
