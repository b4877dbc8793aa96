"""axe-core finds no serious or critical violation on any page, light and dark."""

from __future__ import annotations

import pytest

from tests.browser import axe
from tests.browser.conftest import settled

SCHEMES = ["light", pytest.param("dark", marks=pytest.mark.slow)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_page_has_a_serious_violation(page, site, axe_script, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    board = page.request.get(f"{site.url}/v1/sweeps/{site.sweep}/leaderboard").json()
    sweep = f"/sweeps/{site.sweep}"
    found = {}
    for path in [
        *("/", "/new", "/datasets", "/datasets/python-topics", "/datasets/digits", "/layers", "/workers", "/docs"),
        *(sweep, f"{sweep}?state=failed", f"{sweep}/compare?trial=1&trial=2"),
        *(f"{sweep}?picture={name}" for name in ("effects", "hypervolume", "parallel")),
        f"/trials/{board['items'][0]['trial']}",
    ]:
        page.goto(site.url + path)
        settled(page)
        if broken := axe.violations(page, axe_script):
            found[path] = broken
    assert found == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_of_an_error_has_no_serious_violation(browser, site, axe_script, scheme):
    with browser.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(f"{site.url}/sweeps/none")
        assert page.locator("h1").is_visible()
        assert axe.violations(page, axe_script) == []


def test_axe_finds_what_is_wrong(page, axe_script):
    """The check itself works: a page with known faults."""
    page.set_content("<html><head><title>t</title></head><body><img src='data:,'><input></body></html>")
    found = {line.partition(" ")[0] for line in axe.violations(page, axe_script)}
    assert found >= {"image-alt", "label", "html-has-lang"}
