"""The page in a real browser: its policy lets it run, it refreshes itself, and it works without scripts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from service.auth import tokens
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import Site
from tests.service.sweep_rows import add_sweep

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra [dev] has it)")


# Texts of first rows' cells that do not begin below the head of their column. Rows that are cards have no heads.
ASTRAY = """[...document.querySelectorAll("table")].flatMap((table) => {
  const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
  const row = table.tBodies[0]?.rows[0];
  if (!row || row.cells.length !== heads.length || getComputedStyle(row).display === "grid") return [];
  return heads.flatMap((head, place) => {
    const [above, below] = [head.getBoundingClientRect(), row.cells[place].getBoundingClientRect()];
    return Math.abs(above.left - below.left) <= 1 && above.bottom <= below.top + 1 ? [] : [row.cells[place].innerText];
  });
})"""


def rows(page: Any) -> list[str]:
    return page.locator("#sweep-board tbody th[scope=row] a").all_inner_texts()


def back(page: Any) -> None:
    """One step back in the history; the page that was there is loaded again."""
    with page.expect_event("load"):
        page.evaluate("setTimeout(() => history.back())")


def test_every_page_loads_without_a_complaint_and_fits_a_phone(page: Any, site: Site):
    board = page.request.get(f"{site.url}/v1/sweeps/{site.sweep}/leaderboard").json()
    own = [
        f"/sweeps/{site.sweep}",
        f"/sweeps/{site.sweep}/compare?trial=0&trial=1&trial=2",
        f"/trials/{board['items'][0]['trial']}",
    ]
    for path in ["/", "/new", "/datasets", "/datasets/python-topics", "/layers", "/workers", "/docs", *own]:
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(site.url + path)
            assert page.locator("h1").is_visible()
            overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert overflow <= 0, f"{path} is wider than a screen of {width} pixels"
            assert page.evaluate(ASTRAY) == [], f"cells of {path} stand under no head at {width} pixels"


def test_a_trial_that_ends_appears_without_a_reload(page: Any, site: Site):
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.get_by_text("live", exact=True).wait_for()
    page.evaluate("window.sameDocument = true")
    site.end_trial(8, latency=0.5)
    playwright.expect(page.locator("#sweep-board tbody tr")).to_have_count(9)
    assert rows(page)[0] == "8"
    playwright.expect(page.locator("#sweep-head [role=status]")).to_contain_text("9 of 20 trials")
    assert page.evaluate("window.sameDocument") is True


def test_the_page_is_live_whichever_script_comes_last(page: Any, site: Site):
    held = []
    page.route("**/htmx-sse.min.js*", lambda route: held.append(route))
    with page.expect_response("**/page.js*"), page.expect_response("**/htmx.min.js*"):
        page.goto(f"{site.url}/sweeps/{site.sweep}", wait_until="commit")
    page.locator("footer").wait_for()
    held[0].continue_()
    page.get_by_text("live", exact=True).wait_for()


def test_a_refresh_keeps_scroll_focus_and_what_was_opened(page: Any, site: Site):
    page.set_viewport_size({"width": 610, "height": 500})
    metrics = ("latency_ms_p50", "latency_ms_p99", "memory_bytes", "parameter_count", "generalization_gap", "flops")
    columns = "&".join(f"column={name}" for name in ("num_layers", "mlp.kind", "validation_loss", *metrics))
    page.goto(f"{site.url}/sweeps/{site.sweep}?{columns}")
    page.get_by_text("live", exact=True).wait_for()
    page.locator("#why-recommended summary").click()
    heading = page.locator("#sweep-board thead a", has_text="num_layers")
    heading.focus()
    page.evaluate("document.getElementById('board-scroll').scrollLeft = 20; window.scrollTo(0, 300)")
    site.end_trial(8, latency=0.5)
    playwright.expect(page.locator("#sweep-board tbody tr")).to_have_count(9)
    assert page.evaluate("document.activeElement.textContent") == "num_layers"
    assert page.evaluate("document.getElementById('board-scroll').scrollLeft") == 20
    assert page.evaluate("window.scrollY") == pytest.approx(300, abs=60)
    assert page.locator("#why-recommended").get_attribute("open") is not None


def test_choices_are_kept_in_the_address(page: Any, site: Site):
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.locator("#filter-state").select_option("failed")
    page.wait_for_url(re.compile("state=failed"))
    page.get_by_text("No trial passes these filters.").wait_for()
    page.get_by_label("X axis").select_option("number")
    page.wait_for_url(re.compile("state=failed.*x=number|x=number.*state=failed"))
    back(page)
    back(page)
    playwright.expect(page.locator("#sweep-board tbody tr")).to_have_count(8)
    page.locator("#sweep-board thead a", has_text="validation loss").click()
    page.wait_for_url(re.compile("sort=validation_loss"))
    playwright.expect(page.locator("#sweep-board tbody th[scope=row] a").first).to_have_text("7")


def test_the_keyboard_reaches_the_content_and_its_links(page: Any, site: Site):
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_without_scripts_the_page_is_whole(browser: Any, site: Site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    assert len(rows(page)) == 8
    page.locator("#filter-feasible").select_option("false")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(re.compile("feasible=false"))
    assert page.get_by_text("No trial passes these filters.").is_visible()
    page.goto(f"{site.url}/new")
    assert "name: quickstart" in page.locator("#document").input_value()
    context.close()


def test_the_list_follows_a_new_sweep(page: Any, site: Site):
    page.goto(site.url)
    page.evaluate("window.sameDocument = true")
    site.database.write(lambda session: add_sweep(session, name="posted later"))
    page.get_by_role("link", name="posted later").wait_for()
    assert page.evaluate("window.sameDocument") is True


def test_what_is_refused_says_why_on_a_page_of_its_own_and_replaces_nothing(browser: Any, site: Site):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.locator("#where-name").select_option("num_layers")
    page.locator("#where-value").fill("many")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="The request cannot be carried out as it stands").wait_for()
    playwright.expect(page.locator(".problem .status + h1 + p")).to_contain_text("num_layers is a number here")
    # Not `go_back`, which waits for a navigation that there is none of where the browser has kept the page; and not in
    # the call itself, whose answer the navigation would cut off.
    page.evaluate("setTimeout(() => history.back())")
    page.locator("#sweep-board tbody tr").first.wait_for()
    context.close()


def test_why_an_action_was_refused_stays_while_the_page_is_live(browser: Any, site: Site):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    problem = {"detail": "this needs a token with the scope submit"}
    page.route("**/v1/sweeps/*:pause", lambda route: route.fulfill(status=403, json=problem))
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.get_by_text("live", exact=True).wait_for()
    page.get_by_role("button", name="Pause").click()
    says = page.locator("#refused")
    playwright.expect(says).to_have_text(problem["detail"])
    site.end_trial(8, latency=0.5)
    playwright.expect(page.locator("#sweep-head [role=status]")).to_contain_text("9 of 20 trials")
    playwright.expect(says).to_be_visible()
    playwright.expect(says).to_have_text(problem["detail"])
    page.unroute("**/v1/sweeps/*:pause")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    playwright.expect(says).to_be_hidden()
    context.close()


def test_a_dataset_is_added_and_deleted_on_the_page(page: Any, site: Site):
    page.goto(f"{site.url}/datasets")
    page.locator("#upload [name=task]").select_option("seq2seq")
    assert page.get_by_label("a target's token is").is_visible()
    page.locator("#upload [name=task]").select_option("causal_lm")
    page.locator("#upload [name=name]").fill("my-text")
    page.locator("#upload [data-for=causal_lm] [name=tokenizer]").select_option("char")
    text = {"name": "my.txt", "mimeType": "text/plain", "buffer": b"one two three " * 500}
    page.set_input_files("#upload [name=file]", text)
    page.get_by_role("button", name="Add the dataset").click()
    page.wait_for_url("**/datasets/my-text")
    page.get_by_text("a token is a character").wait_for()
    questions: list[str] = []
    page.on("dialog", lambda dialog: (questions.append(dialog.message), dialog.accept()))
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/datasets")
    assert questions == ["Delete the dataset my-text? This cannot be undone."]
    assert page.request.get(f"{site.url}/v1/datasets/my-text").status == 404


def test_who_is_logged_in_is_said_and_logs_out(browser: Any, site: Site):
    new = tokens.NewToken("ada", ["read"], "default")
    _, secret = site.database.write(lambda session: tokens.create(session, new, made_by="test"))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.url}/login?next=/datasets")
        page.get_by_label("Token").fill(secret)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/datasets")
        page.locator("#account summary").click()
        playwright.expect(page.locator("#account dl")).to_have_text(re.compile("ada.*default.*read", re.DOTALL))
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")


def test_a_token_that_is_revoked_while_a_page_is_open_leads_to_the_login(browser: Any, site: Site):
    admin = tokens.NewToken("grace", ["admin"], None)
    _, whole = site.database.write(lambda session: tokens.create(session, admin, made_by="test"))
    new = tokens.NewToken("ada", ["read"], None)
    token, secret = site.database.write(lambda session: tokens.create(session, new, made_by="test"))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.url}/login?next=/sweeps/{site.sweep}")
        page.get_by_label("Token").fill(secret)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("live", exact=True).wait_for()
        headers = {"Authorization": f"Bearer {whole}"}
        assert page.request.delete(f"{site.url}/v1/tokens/{token.id}", headers=headers).ok
        site.end_trial(8, latency=0.5)
        page.wait_for_url("**/login?**")
        playwright.expect(page.get_by_role("alert")).to_have_text("this token was revoked")
        playwright.expect(page.locator("header.top")).to_have_count(1)


def test_an_operation_is_tried_on_the_page_of_the_api(page: Any, site: Site):
    page.goto(f"{site.url}/docs#extend_sweep")
    form = page.locator("#extend_sweep form")
    page.locator("#extend_sweep .try > summary").click()
    assert "curl -X POST" in page.locator("#extend_sweep .curl").inner_text()
    form.get_by_label("sweep").fill(site.sweep)
    form.locator("textarea").fill('{"trials": 7}')
    form.get_by_role("button", name="Send").click()
    playwright.expect(form.locator(".answer p")).to_contain_text(f"200 OK · POST /v1/sweeps/{site.sweep}:extend")
    playwright.expect(form.locator(".answer pre")).to_contain_text('"trials": 27')


def test_a_sweep_is_named_noted_and_tagged_while_it_runs(page: Any, site: Site):
    page.goto(f"{site.url}/sweeps/{site.sweep}")
    page.get_by_text("live", exact=True).wait_for()
    form = page.locator("#annotate form")
    page.locator("#annotate > summary").click()
    form.locator("[name=name]").fill("baseline")
    form.locator("[name=tags]").fill("paper v1")
    form.locator("[name=note]").fill("diverges above 0.003")
    site.end_trial(8, latency=0.5)
    playwright.expect(page.locator("#sweep-head [role=status]")).to_contain_text("9 of 20 trials")
    form.get_by_role("button", name="Save").click()
    playwright.expect(page.locator("#sweep-head .note")).to_have_text("diverges above 0.003")
    playwright.expect(page.locator("#sweep-head h1")).to_have_text("baseline")
    page.locator("#sweep-head .tags a", has_text="paper").click()
    page.get_by_role("link", name="baseline").wait_for()
