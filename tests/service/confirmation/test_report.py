"""The report: one story in three formats, complete and harmless whatever the names in it are."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from service.common.templates import html_environment
from service.confirmation import confirmations
from service.database.models import Trial, TrialMetric
from tests.service.confirmation.finishing import claim, finish
from tests.service.sweep_rows import add_sweep

SIX = ("Task and data", "Experimentation", "Resource constraints", "Complexity", "Literature", "Compatibility")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_html_stands_alone_and_tells_all_six_parts(client, confirmed_sweep):
    answer = client.get(f"/v1/sweeps/{confirmed_sweep}/report", headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = answer.text
    for part in (*SIX, "Take trial 1", "How sure", "To do it again", "test loss"):
        assert part in text
    tags = Tags()
    tags.feed(text)
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "img", "object"}
    assert not [attributes for _, attributes in tags.seen if {"src", "href", "style", "onload"} & attributes.keys()]
    assert sum(tag == "svg" and "role" in attributes for tag, attributes in tags.seen) == 3, "three pictures"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_markdown_and_json_tell_the_same(client, confirmed_sweep):
    path = f"/v1/sweeps/{confirmed_sweep}/report"
    text = client.get(path, params={"format": "markdown"}).text
    assert text.startswith("# a sweep\n")
    for number, part in enumerate(SIX, 1):
        assert re.search(rf"^## {number}\. .*{part}", text, re.MULTILINE)
    found = client.get(path).json()
    recommendation = client.get(f"/v1/sweeps/{confirmed_sweep}/recommendation").json()
    assert found["recommendation"]["trial"] == recommendation["trial"]
    assert found["recommendation"]["evidence"] == recommendation["evidence"]
    assert found["confirmation"]["state"] == "completed"
    assert found["reproduction"]["confirmation_seeds"] == [1001, 1002, 1003]
    assert found["reproduction"]["document"] == found["sweep"]["document"]
    preferred = client.get(path, params={"prefer": "latency_ms_p50", "format": "markdown"}).text
    assert "## Take trial 0" in preferred


def test_the_head_says_what_the_figures_hold_for_and_how_noisy_they_are(client, services, make_sweep):
    sweep = make_sweep()

    def make_noisy(session):
        for row in session.query(TrialMetric).filter_by(sweep_id=sweep, name="latency_cv"):
            session.delete(row)
        for trial in session.query(Trial).filter_by(sweep_id=sweep):
            session.add(TrialMetric(trial_id=trial.id, sweep_id=sweep, name="latency_cv", value=0.5))

    services.database.write(make_noisy)
    path = f"/v1/sweeps/{sweep}/report"
    found = client.get(path).json()
    noise = found["sweep"]["noise"]
    assert noise["level"] == "note"
    for form in ("html", "markdown"):
        text = html.unescape(client.get(path, params={"format": form}).text).replace("\\", "")
        head = text.partition("Take trial")[0]
        assert noise["says"] in head
        for part in (
            " × ",
            "(batch × tokens)",
            "latency_ms_p50 <= 2.9",
            found["dataset"]["name"],
            found["sweep"]["target"],
        ):
            assert part in head
        assert "targets can run it" in text.partition("<details><summary>")[0], "the targets are folded"


def test_two_seeds_are_shown_without_an_interval_and_selection_in_words(client, services, make_sweep, worker):
    sweep = make_sweep()
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 2, "trials": [1]}).status_code == 201
    text = client.get(f"/v1/sweeps/{sweep}/report", params={"format": "markdown"}).text
    assert "2. Experimentation: not confirmed yet" in text
    assert "All together" not in text
    for loss in (1.9, 1.8):
        finish(client, claim(client, services, worker), validation_loss=loss, test_loss=loss)
    found = client.get(f"/v1/sweeps/{sweep}/confirmations").json()["items"][0]
    (candidate,) = found["candidates"]
    assert (candidate["test"]["expected"], candidate["test"]["one_more"]) == (None, None)
    assert "its seeds have 1.9000, 1.8000; an interval needs at least 3 seeds" in candidate["says"]
    assert found["says"][0].startswith("further seeds have validation losses 0.1500 nats lower")
    page = client.get(f"/sweeps/{sweep}").text
    assert "from 3 seeds on" in page
    assert "better than the sweep said" in page
    assert "was not confirmed" not in page


def test_a_recommended_trial_that_was_not_confirmed_is_said_to_be_so(client, services, make_sweep, worker):
    sweep = make_sweep()
    assert client.post(f"/v1/sweeps/{sweep}:confirm", json={"seeds": 1, "trials": [0]}).status_code == 201
    path = f"/v1/sweeps/{sweep}/report"
    meanwhile = client.get(path, params={"format": "markdown"}).text
    assert "2. Experimentation: other trials are being confirmed" in meanwhile
    assert "rial 1, which is recommended, is not being confirmed: trial 0 is" in meanwhile
    assert "Trial 1 is not being confirmed: these are." in client.get(f"/sweeps/{sweep}").text
    says = "rial 1, which is recommended, was not confirmed: trial 0 was"
    finish(client, claim(client, services, worker))
    services.database.write(confirmations.end_finished)
    for form in ("html", "markdown"):
        text = client.get(path, params={"format": form}).text
        assert "2. Experimentation: other trials were confirmed" in text
        assert f"{says}. Of those, trial 0 has the lowest mean test loss, 2.0800 nats" in text
        assert f"layersweep confirm {sweep} --trial 1" in text
        assert text.count("the lowest mean test loss") == 1
        preferred = client.get(path, params={"format": form, "prefer": "latency_ms_p50"}).text
        assert "confirmed on a split that no sweep has seen" in preferred
    assert "Trial 1 was not confirmed" in client.get(f"/sweeps/{sweep}").text


def test_a_name_is_text_and_a_sweep_without_results_has_a_report(client, services):
    name = "<script>alert(1)</script>"
    sweep = services.database.write(lambda session: add_sweep(session, name=name).id)
    text = client.get(f"/v1/sweeps/{sweep}/report", params={"format": "html"}).text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "No recommendation" in text
    assert "No recommendation" in client.get(f"/v1/sweeps/{sweep}/report", params={"format": "markdown"}).text
    assert client.get(f"/v1/sweeps/{sweep}/report").json()["recommendation"] is None
    assert client.get("/v1/sweeps/nothing/report").status_code == 404
    assert client.get(f"/v1/sweeps/{sweep}/report", params={"format": "pdf"}).status_code == 422


def test_without_a_feasible_trial_the_report_explains_the_data_and_what_was_broken(client, services, make_sweep):
    sweep = make_sweep()

    def break_all(session):
        for trial in session.query(Trial).filter_by(sweep_id=sweep):
            trial.feasible, trial.pareto_rank = False, None
            trial.violations = {"latency_ms_p50 <= 2.9": 0.25 + trial.number}

    services.database.write(break_all)
    says = "4 of 4 trials broke latency_ms_p50 <= 2.9; the nearest, trial 0, by 0.25 ms"
    path = f"/v1/sweeps/{sweep}/report"
    (broken,) = client.get(path).json()["unrecommended"]["constraints"]
    assert (broken["says"], broken["nearest"], broken["by"]) == (says, 0, 0.25)
    for form in ("html", "markdown"):
        text = html.unescape(client.get(path, params={"format": form}).text).replace("\\", "")
        for part in (*SIX[:3], "No recommendation", "Trials by state", "To do it again"):
            assert part in text
        assert "the validation split has" in text, "what the data imply"
        assert says in text
        assert SIX[3] not in text


def test_the_report_draws_the_first_objective_against_the_last_as_the_page_does(client, make_sweep):
    names = ("latency_ms_p50", "parameter_count", "validation_loss")
    sweep = make_sweep(objectives=[{"metric": name, "goal": "minimize"} for name in names])
    text = client.get(f"/v1/sweeps/{sweep}/report", params={"format": "html"}).text
    assert 'aria-label="validation loss by latency p50 of' in text


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_templates_are_readable_without_a_service(name):
    assert html_environment().get_template(name)
