"""The screens of a sweep as people use them: leaderboard, pictures, what-if, comparison."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from sqlalchemy.orm import Session

from benchmarks.support import generated_sweep
from tests.browser import axe
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import Site, settled
from tests.service.sweep_rows import add_sweep, add_trial, rank

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


def test_the_first_picture_has_content_and_a_point_says_its_parameters(page: Any, site: Site, wide: str) -> None:
    page.goto(wide)
    settled(page)
    assert page.locator("#picture-tabs [aria-current]").inner_text() == "Effects"
    assert page.locator("[data-picture=effects] canvas").count() == 11
    picture = page.locator("#picture-tradeoff")
    box = picture.bounding_box()
    tip = picture.locator(".tip")
    # Over the picture in a grid, until a point lies under the pointer.
    for across, down in itertools.product(range(70, int(box["width"]), 12), range(60, int(box["height"]) - 40, 12)):
        page.mouse.move(box["x"] + across, box["y"] + down)
        if tip.count() and tip.is_visible():
            break
    playwright.expect(tip).to_contain_text("num_layers")
    page.goto(f"{site.url}/sweeps/{site.database.write(lambda session: _with_trials(session, 3))}")
    settled(page)
    assert page.locator("#picture-tabs [aria-current]").inner_text() == "Parallel coordinates"


def test_every_picture_is_drawn(page: Any, wide: str) -> None:
    page.goto(wide)
    said = {}
    for name in ("Effects", "Importance", "Hypervolume", "Parallel coordinates"):
        page.locator("#picture-tabs a", has_text=name).click()
        settled(page)
        panel = page.locator("#sweep-analysis [data-panel] >> visible=true")
        assert panel.locator("canvas").count() >= 1, panel.inner_text()
        said[name] = panel.inner_text()
    page.locator("#picture-tabs a", has_text="Hypervolume").click()
    page.locator("#hypervolume-over").select_option("time")
    settled(page)
    assert page.locator("#sweep-analysis .bad").count() == 0
    assert "raised it last" in said["Hypervolume"]


def test_every_value_stands_below_its_effect(page: Any, wide: str) -> None:
    page.goto(f"{wide}?picture=effects")
    settled(page)
    drawn = page.evaluate(
        """async () => {
          const { getInstanceByDom } = await import(document.getElementById("pictures").dataset.echarts);
          const found = [...document.querySelectorAll("[data-picture=effects] [data-parameter]")].map((figure) => {
            const texts = getInstanceByDom(figure.lastChild).getZr().storage.getDisplayList();
            return [figure.dataset.parameter, texts.map((each) => each.style.text ?? "").join("")];
          });
          return Object.fromEntries(found);
        }"""
    )
    for value in ("learned_absolute", "rope_gpt_neox"):
        assert value in drawn["attention.position_embedding_type"]


def test_no_scale_is_made_up_around_a_single_trial(page: Any, site: Site) -> None:
    page.goto(f"{site.url}/sweeps/{site.database.write(lambda session: _with_trials(session, 1))}?picture=parallel")
    settled(page)
    lowest = page.evaluate(
        """async () => {
          const { getInstanceByDom } = await import(document.getElementById("pictures").dataset.echarts);
          const chart = getInstanceByDom(document.querySelector("[data-picture=parallel]"));
          return chart.getOption().parallelAxis.map((axis) => axis.min ?? 0);
        }"""
    )
    assert len(lowest) >= 2
    assert min(lowest) >= 0, "no time below zero"


def test_a_slider_moves_the_star_without_a_reload(page: Any, wide: str, axe_script: str) -> None:
    page.goto(f"{wide}?x=memory_bytes")
    settled(page)
    page.evaluate("window.sameDocument = true")
    star = page.locator("#sweep-recommended .lead a")
    first = page.locator("#sweep-board tbody th a").first
    before = star.inner_text()
    page.locator("#what-if summary").click()
    page.get_by_label("latency p50 at most").focus()
    # To the front's best: one trial is left.
    page.keyboard.press("Home")
    playwright.expect(page.locator("#what-if-says")).to_contain_text("1 of the front's")
    playwright.expect(star).not_to_have_text(before)
    playwright.expect(first).to_have_text(star.inner_text().removeprefix("Trial "))
    page.wait_for_url(re.compile(r"within=latency_ms_p50%3A0&x=memory_bytes"))
    assert page.evaluate("document.activeElement.name") == "limit.latency_ms_p50"
    assert axe.violations(page, axe_script) == []
    page.get_by_label("validation loss at most").focus()
    page.keyboard.press("Home")
    page.get_by_text("No trial is within these limits.").wait_for()
    page.keyboard.press("End")
    page.get_by_label("latency p50 at most").focus()
    page.keyboard.press("End")
    playwright.expect(star).to_have_text(before)
    assert page.evaluate("window.sameDocument") is True


def test_sweeps_stand_beside_one_another_on_any_screen(page: Any, site: Site, axe_script: str) -> None:
    other = generated_sweep.generate(site.database, 8)
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.locator("#compare-add").select_option(other)
    page.get_by_role("heading", name="2 sweeps compared").wait_for()
    assert page.get_by_role("img", name="The fronts of the sweeps").is_visible()
    assert axe.violations(page, axe_script) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def _with_trials(session: Session, count: int) -> str:
    sweep = add_sweep(session)
    trials = [
        add_trial(session, sweep, n, {"latency_ms_p50": 0.1 + n, "validation_loss": 3.0 - n}) for n in range(count)
    ]
    rank(session, sweep, trials)
    return sweep.id
