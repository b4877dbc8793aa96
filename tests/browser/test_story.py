"""The whole story of a sweep in a browser: real service, real worker, headless Chromium, nothing from elsewhere."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any
from urllib.parse import urlsplit

import pytest

from benchmarks.support.processes import running_service, running_worker
from layersweep import Client
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import settled, write_document

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra [dev] has it)")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE_MS = 600_000
"""For what a worker computes."""

TRIALS = 5
DOCUMENT = f"""\
name: story
task: causal_lm
dataset: help
model:
  num_layers: {{values: [1, 2]}}
  hidden_size: {{values: [16, 32]}}
  attention: {{num_attention_heads: 2}}
  mlp: {{kind: {{values: [MLP, GatedMLP]}}, ffn_hidden_size: 64}}
training: {{steps: 20, batch_size: 4, sequence_length: 16, learning_rate: 0.005, warmup_steps: 2, eval_every: 5}}
inference: {{batch_size: 1, sequence_length: 16}}
objectives:
  - {{metric: latency_ms_p50, goal: minimize}}
  - {{metric: parameter_count, goal: minimize}}
  - {{metric: validation_loss, goal: minimize}}
budget: {{trials: {TRIALS}, parallel: 1}}
search: {{sampler: random, seed: 3}}
"""
WRONG = DOCUMENT.replace("num_layers: {values: [1, 2]}", "num_layers: {values: [1, -2]}")


@dataclass
class Watched:
    """A page, and what it asked for and complained of."""

    page: Any
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def watched(browser: Any, folder: Path) -> Iterator[Watched]:
    with running_service(folder) as url:
        # With a test split, which a confirmation needs.
        Client(url).add_dataset("help", "\n".join(topics.values()).encode(), tokenizer="byte", validation=0.2, test=0.2)
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        context.set_default_timeout(60_000)
        watched = Watched(context.new_page(), url)
        watched.listen()
        yield watched
        context.close()


def test_from_the_editor_to_the_report(watched: Watched, folder: Path) -> None:
    page, url, expect = watched.page, watched.url, playwright.expect
    expect.set_options(timeout=60_000)

    # The editor says where a document is wrong, and then what the corrected one means.
    answer = page.goto(f"{url}/new")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page.locator("#editor-form[data-ready]").wait_for()
    write_document(page, WRONG)
    expect(page.locator("#findings")).to_contain_text("/model/num_layers")
    expect(page.locator("#findings [data-line]").first).to_have_attribute("data-line", "5")
    expect(page.locator("#document")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#submit")).to_be_disabled()
    write_document(page, DOCUMENT)
    expect(page.locator("#findings")).to_contain_text("Ready to run")
    expect(page.locator("#submit")).to_be_enabled()
    page.locator("#submit").click()
    page.wait_for_url(re.compile("/sweeps/"))
    sweep = urlsplit(page.url).path.rpartition("/")[2]

    # Paused and resumed before anything runs; then watched to the end without another load.
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#sweep-head")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#sweep-head")).to_contain_text("active")
    page.evaluate("window.sameDocument = true")
    with running_worker(url, folder):
        expect(page.locator("#sweep-running")).to_be_visible(timeout=PATIENCE_MS)
        rows = page.locator("#sweep-board tbody tr[id^=row-]")
        expect(page.locator("#sweep-head .headline")).to_contain_text("completed", timeout=PATIENCE_MS)
        expect(page.locator("#sweep-board tbody tr.complete")).to_have_count(TRIALS)
        assert page.evaluate("window.sameDocument") is True
        settled(page)

        # Sorted and filtered, in the address.
        page.locator("#sweep-board thead a", has_text="validation loss").click()
        page.wait_for_url(re.compile("sort=validation_loss"))
        board = page.request.get(f"{url}/v1/sweeps/{sweep}/leaderboard?sort=validation_loss").json()["items"]
        shown = page.locator("#sweep-board tbody th[scope=row] a")
        expect(shown).to_have_text([str(row["number"]) for row in board])
        middle = board[2]["metrics"]["parameter_count"]
        page.locator("#where-name").select_option("parameter_count")
        page.locator("#where-operator").select_option("<=")
        page.locator("#where-value").fill(str(int(middle)))
        page.locator("#board-where button").click()
        kept = [row for row in board if row["metrics"]["parameter_count"] <= middle]
        expect(shown).to_have_text([str(row["number"]) for row in kept])
        page.locator("#board-where .chip").click()
        expect(rows).to_have_count(TRIALS)

        # Other objectives in the picture.
        with page.expect_response(re.compile("tradeoff.*x=parameter_count")):
            page.locator("#axis-x").select_option("parameter_count")
        page.wait_for_url(re.compile("x=parameter_count"))
        settled(page)
        expect(page.locator("#says-tradeoff")).to_contain_text(f"{TRIALS} trials")

        # Three trials compared, only their differences.
        for box in page.locator("#sweep-board td.pick input").all()[:3]:
            box.check()
        page.locator("#compare-button").click()
        page.wait_for_url(re.compile("/compare"))
        expect(page.locator("h1")).to_have_text("3 trials compared")
        expect(page.get_by_role("heading", name="The same in all")).to_be_visible()
        page.get_by_label("only differences").check()
        page.wait_for_url(re.compile("differing=true"))
        expect(page.get_by_role("heading", name="The same in all")).to_have_count(0)

        # A trial.
        page.locator(".compared-states a").first.click()
        page.wait_for_url(re.compile("/trials/"))
        expect(page.locator("main")).to_contain_text("Attempt 1")

        # Confirmed on the test split, by the button.
        page.goto(f"{url}/sweeps/{sweep}")
        page.locator("form.confirm [name=candidates]").fill("1")
        page.locator("form.confirm [name=seeds]").fill("2")
        page.get_by_role("button", name="Confirm").click()
        expect(page.locator("#sweep-recommended")).to_contain_text("test loss", timeout=PATIENCE_MS)

    # What is taken away.
    table = page.request.get(page.locator(".exports a", has_text="CSV").evaluate("link => link.href"))
    assert len(list(csv.DictReader(io.StringIO(table.text())))) == TRIALS
    for link in page.locator("#sweep-recommended ul.links a[download]").all():
        with page.expect_download() as download:
            link.click()
        saved = folder / download.value.suggested_filename
        download.value.save_as(saved)
        assert saved.stat().st_size > 0
    kept = {path.suffix for path in folder.iterdir()}
    assert {".md", ".safetensors", ".onnx", ".json"} <= kept, kept
    assert json.loads(next(folder.glob("*.json")).read_text())
    page.locator("#sweep-recommended a", has_text="Report").click()
    expect(page.locator("h1")).to_contain_text("story")
    expect(page.locator("body")).to_contain_text("further seeds")

    hosts = {urlsplit(each).netloc for each in watched.requests if not each.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(url).netloc}
    assert watched.complaints == []
