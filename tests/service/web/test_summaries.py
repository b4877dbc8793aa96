"""Pages and reports speak of the metrics that a sweep decides by."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import DOCUMENT, add_sweep, add_trial, complete_configuration, rank

DECODE, PREFILL = "decode_ms_per_token_p50 <= 0.3", "prefill_ms_p50 <= 1.2"


@pytest.fixture
def generated(services: Services) -> dict[str, str]:
    """A sweep of mode generate with limits on prompt and step: of four trials one breaks a limit, one is best."""

    def add(session: Session) -> tuple[str, list[str]]:
        document = {**DOCUMENT, "inference": {"mode": "generate"}, "constraints": [DECODE, PREFILL]}
        sweep = add_sweep(
            session, document=document, objectives=[{"metric": "validation_loss", "goal": "minimize"}], target_key="cpu"
        )
        trials = [
            add_trial(
                session,
                sweep,
                number,
                {
                    "validation_loss": 3.0 - number / 8,
                    "latency_ms_p50": 7.77,
                    "latency_cv": 0.5,
                    "decode_ms_per_token_p50": 0.0625 * (number + 2),
                    "prefill_ms_p50": 0.4375 + number / 1000,
                    "memory_bytes": 2**20,
                    "parameter_count": 1000.0,
                },
                configuration=complete_configuration(number + 1),
                violations={DECODE: 0.0625 * (number + 2) - 0.3, PREFILL: -0.7},
                feasible=number < 3,
                noise={
                    "figures": {
                        name: {"low": 0.2, "high": 0.5, "processes": 2, "spread": None, "known": True}
                        for name in ("latency_ms_p50", "decode_ms_per_token_p50", "prefill_ms_p50")
                    },
                    "undecided": [],
                },
            )
            for number in range(4)
        ]
        rank(session, sweep, trials[:3])
        return sweep.id, [trial.id for trial in trials]

    def fill(session: Session) -> dict[str, str]:
        sweep, trials = add(session)
        return {"sweep": sweep, "best": trials[2], "broken": trials[3], "other": add(session)[0]}

    return services.database.write(fill)


def texts(html: str, tag: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", each) for each in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)]


def test_summaries_name_what_the_sweep_decides_by(client: TestClient, generated: dict[str, str]) -> None:
    path = f"/sweeps/{generated['sweep']}"
    report = client.get(f"/v1{path}/report?format=html").text
    card = page(client, path).partition('id="sweep-recommended"')[2]
    for place, text in (("trial", page(client, f"/trials/{generated['best']}")), ("card", card), ("report", report)):
        figures = text.partition('<dl class="figures')[2].partition("</dl>")[0]
        shown = ["2.750 nats", "0.25 ms", "0.4395 ms", "1 MiB", "1 k"]
        assert [each.strip() for each in texts(figures, "dd")] == shown, place
    for text in (report.partition("<h2>The front</h2>")[2], client.get(f"/v1{path}/report?format=markdown").text):
        assert "0.25 ms" in text
        assert "7.770 ms" not in text


def test_a_gap_that_a_sweep_decides_by_is_shown_once(client: TestClient, services: Services) -> None:
    def fill(session: Session) -> str:
        sweep = add_sweep(session, document=DOCUMENT, objectives=[{"metric": "generalization_gap", "goal": "minimize"}])
        return add_trial(session, sweep, 0, {"generalization_gap": 0.125}, configuration=complete_configuration(1)).id

    head = page(client, f"/trials/{services.database.write(fill)}").partition('<dl class="figures')[2]
    assert head.partition("</dl>")[0].count("<dd>") == 1


def test_the_picture_of_one_objective_has_every_complete_trial(client: TestClient, generated: dict[str, str]) -> None:
    report = client.get(f"/v1/sweeps/{generated['sweep']}/report?format=html").text
    chart, _, rest = report.partition('<svg class="chart"')[2].partition("</svg>")
    assert chart.count('<g class="mark') == 4
    assert "decode p50 (ms)" in chart
    caption = re.sub(r"<[^>]+>", "", rest.partition("</figcaption>")[0]).strip()
    assert caption == "Every complete trial. ★ recommended, ● others, ○ not feasible."


def test_a_trial_s_constraints_have_its_values(client: TestClient, generated: dict[str, str]) -> None:
    kept, broken = (page(client, f"/trials/{generated[name]}") for name in ("best", "broken"))
    assert "0.25 ms, kept" in re.sub(r"<[^>]+>", "", kept)
    assert "0.3125 ms, broken by 0.0125" in re.sub(r"<[^>]+>", "", broken)


def test_compared_sweeps_show_what_their_limits_are_on(client: TestClient, generated: dict[str, str]) -> None:
    text = page(client, "/compare", sweep=[generated["sweep"], generated["other"]])
    table = text.partition("Figures of the recommended trials</caption>")[2].partition("</table>")[0]
    heads = re.findall(r'<th scope="row"[^>]*>([^<]+)', table)
    assert heads == ["validation loss", "decode p50", "prefill p50", "memory", "parameters"]


def test_noise_is_told_of_what_the_sweep_decides_by(client: TestClient, generated: dict[str, str]) -> None:
    found = client.get(f"/v1/sweeps/{generated['sweep']}/recommendation").json()["certainty"]["says"]
    assert found[:3] == [
        "the decode p50 is between 0.2 ms and 0.5 ms (95 %, 2 processes)",
        "the prefill p50 is between 0.2 ms and 0.5 ms (95 %, 2 processes)",
        "how far another build's decode p50 and prefill p50 would land is not known",
    ]
    said = client.get(f"/v1/sweeps/{generated['sweep']}").json()["noise"]["says"]
    assert said.startswith("4 of 4 measurements are noisy (CV of the forward pass 50 %)")
