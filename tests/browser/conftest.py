"""A browser, and a service with a sweep to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.app import create_app
from service.database.models import Sweep
from service.database.sessions import Database
from service.events import events
from service.settings import Settings
from tests.browser import axe
from tests.browser.chromium import CHROMIUM
from tests.conftest import serving
from tests.service.sweep_rows import add_sweep, add_trial, add_worker, rank


@dataclass
class Site:
    url: str
    database: Database
    sweep: str

    def end_trial(self, number: int, latency: float) -> None:
        """A trial ends, and an event says so."""

        def end(session: Session):
            sweep = session.get_one(Sweep, self.sweep)
            trial = add_trial(session, sweep, number, {"latency_ms_p50": latency, "validation_loss": 1.0})
            trial.pareto_rank = 1
            events.append(session, self.sweep, "trial.ended", trial_id=trial.id, data={"number": number})

        self.database.write(end)


# Not for the session: while Playwright runs, no other test of its process can have an event loop.
@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (the extra [dev] has it)"
    )
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    app = create_app(Settings(database_url="", data_dir=tmp_path), start_scheduler=False)
    with serving(app) as url:
        database = app.state.services.database

        def fill(session: Session):
            add_worker(session)
            sweep = add_sweep(session, name="watched", target=None)
            trials = [
                add_trial(session, sweep, number, {"latency_ms_p50": 1.0 + number, "validation_loss": 3.0 - number / 4})
                for number in range(8)
            ]
            rank(session, sweep, trials)
            return sweep.id

        yield Site(url, database, database.write(fill))


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator:
    """A page that fails the test on any error of a script and on anything that the policy refuses."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def axe_script(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core; skips where it can neither be found nor fetched."""
    # A run without pytest's cache fetches it each time.
    cache = getattr(pytestconfig, "cache", None)
    try:
        return axe.script(tmp_path_factory.mktemp("axe-core") if cache is None else cache.mkdir("axe-core"))
    except axe.NoAxe as error:
        pytest.skip(str(error))


def settled(page: Any) -> None:
    """Wait until what the page shows is drawn. It may stay connected for news, so the network is no sign."""
    page.locator("h1").first.wait_for()
    page.wait_for_load_state()
    for waiting in ("[aria-busy=true]", ".says:text('Drawing')"):
        page.locator(f"{waiting} >> visible=true").first.wait_for(state="detached")


def write_document(page: Any, text: str) -> None:
    """Replace what is in the editor of sweep documents."""
    page.locator("#editor .cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(text)
