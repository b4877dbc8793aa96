"""The screens of a sweep as people use them: leaderboard, pictures, what-if, comparison."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.support import generated_sweep
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import Site, settled

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra [dev] has it)")


@pytest.fixture
def wide(site: Site) -> str:
    """The address of an ended sweep that varies ten parameters."""
    return f"{site.url}/sweeps/{generated_sweep.generate(site.database, 24)}"


def test_the_leaderboard_fits_a_screen_and_begins_with_the_recommended_trial(page: Any, wide: str) -> None:
    page.goto(wide)
    settled(page)
    board = page.locator("#board-scroll")
    assert board.evaluate("each => each.scrollWidth - each.clientWidth") == 0
    assert board.locator("tbody tr").first.locator("[aria-label=recommended]").count() == 1
    head = board.locator("thead a", has_text="attention")
    assert str(head.first.get_attribute("title")).startswith("attention.num_attention_heads: query heads")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    card = board.locator("tbody tr").first
    assert card.evaluate("each => getComputedStyle(each).display") == "grid"
