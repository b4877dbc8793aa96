"""The editor of sweep documents: what it completes and explains, what it marks, and when a sweep can be started."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import Site, write_document

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra [dev] has it)")

WRONG = "name: tried\ntask: causal_lm\ndataset: python-topics\nmodel:\n  num_layers: many\n"

OFFERED: list[tuple[str, set[str] | None, set[str]]] = [
    ("|", {"name", "task", "model", "budget"}, {"num_layers"}),
    ("task: |", {"causal_lm", "classification", "seq2seq", "probe"}, {"name"}),
    ("task: causal_lm\nmo|", {"model", "objectives"}, {"task"}),
    ("model:\n  |\n  num_layers: 2\nname: x", {"hidden_size", "attention", "dtype"}, {"num_layers", "name"}),
    ("model:\n  attention:\n    num_attention_heads: 4\n    |", {"position_embedding_type"}, {"num_attention_heads"}),
    ("model:\n  attention:\n    num_attention_heads: 4\n  |", {"mlp", "hidden_size"}, {"attention", "bias"}),
    ("model: {attention: {position_embedding_type: |}}", {"rope_gpt_neox", "relative"}, {"bias"}),
    ("model:\n  mlp: {kind: {values: [MLP, |", {"GatedMLP", "FusedGatedMLP"}, {"kind"}),
    ("model:\n  mlp:\n    kind: {values: [MLP], |}\n", {"when", "derived"}, {"values", "min"}),
    ("model:\n  num_layers: |", {"{min: 2, max: 12}"}, {"hidden_size"}),
    ("model:\n  attention:\n    bias: |", {"true", "false"}, set()),
    ("objectives:\n  - {metric: |", {"latency_ms_p50", "validation_loss"}, {"goal"}),
    ("objectives:\n  - metric: latency_ms_p50\n    |", {"goal"}, {"metric"}),
    ("objectives:\n- metric: latency_ms_p50\n  goal: |", {"minimize", "maximize"}, set()),
    ("objectives: [{metric: memory_bytes, goal: minimize},\n  {|}]\nbudget:\n", {"metric", "goal"}, {"budget"}),
    ('constraints: ["lat|"]', {"latency_ms_p99"}, {"name"}),
    ('rules: ["hidden_size % att|"]', {"attention.num_attention_heads"}, {"latency_ms_p99"}),
    ("dataset: |", {"my-text"}, {"name"}),
    ("start_from: [|", {"preset:nanogpt-char-cpu"}, set()),
    ("search: {sampler: |", {"tpe", "auto"}, {"seed"}),
    ("budget:\n  trials: 3\n\n  # how long\n  |", {"wall_seconds", "failures"}, {"trials"}),
    ("task: causal_lm\nmodel:\n  |", {"num_layers"}, {"pooling", "classes"}),
    ("task: classification\nmodel:\n  |", {"pooling"}, {"share_source_embedding"}),
    ("name: a  # com|", None, set()),
    ("variables:\n  width: {values: [1], |", {"when"}, {"values"}),
]

EXPLAINED = [
    ("model:\n  num_la|yers: 2", "model.num_layers", "Blocks of attention"),
    ("model: {num_layers: {va|lues: [1]}}", "model.num_layers.values", "values to search among"),
    ("task: causal|_lm", "causal_lm", "predicts the next token"),
    ("objectives: [{metric: latency|_ms_p50}]", "latency_ms_p50", "median device time"),
    ("budget: {tri|als: 3}", "budget.trials", "Trials of the sweep"),
    ("name: so|me", None, None),
]

HINTS = """async (cases) => {
  const form = document.getElementById("editor-form");
  const { Hints } = await import(form.dataset.hints);
  const schema = await (await fetch("/v1/schemas/sweep.json")).json();
  const hints = new Hints(schema, { dataset: ["my-text"] });
  return cases.map(([how, marked]) => {
    const position = marked.indexOf("|");
    return hints[how](marked.replace("|", ""), position);
  });
}"""


@pytest.fixture
def editor(page: Any, site: Site):
    page.goto(f"{site.url}/new")
    page.locator("#editor-form[data-ready]").wait_for()
    playwright.expect(page.locator("#submit")).to_be_enabled()
    return page


def test_the_schema_says_what_may_stand_where(editor: Any):
    cases = [("complete", marked) for marked, _, _ in OFFERED] + [("describe", marked) for marked, _, _ in EXPLAINED]
    answers = editor.evaluate(HINTS, cases)
    for (marked, some, none), answer in zip(OFFERED, answers, strict=False):
        if some is None:
            assert answer is None, marked
            continue
        labels = {option["label"] for option in answer["options"]}
        assert some <= labels, marked
        assert not none & labels, marked
    for (marked, title, text), answer in zip(EXPLAINED, answers[len(OFFERED) :], strict=True):
        if title is None:
            assert answer is None, marked
            continue
        assert answer["title"] == title
        assert text in answer["text"], marked


def test_what_is_wrong_is_marked_and_cannot_be_started(editor: Any):
    write_document(editor, WRONG)
    expect = playwright.expect
    expect(editor.locator("#findings")).to_contain_text("/model/num_layers")
    expect(editor.locator("#submit")).to_be_disabled()
    expect(editor.locator(".cm-lint-marker-error")).not_to_have_count(0)
    assert "many" in editor.locator(".cm-lintRange-error").all_inner_texts()
    editor.locator("#findings [data-go='5']").first.click()
    assert (
        editor.evaluate("document.getElementById('editor').shadowRoot.getSelection().toString()")
        .strip()
        .startswith("num_l")
    )
    write_document(editor, "name: [")
    expect(editor.locator("#findings")).to_contain_text("this is not YAML")
    expect(editor.locator(".cm-lint-marker-error")).to_have_count(1)


def test_it_completes_and_explains_and_starts_as_one_writes(editor: Any):
    beginning = editor.locator("#document").input_value()
    write_document(editor, "name: tried\n")
    editor.keyboard.type("tas")
    editor.locator(".cm-tooltip-autocomplete li", has_text="task").click()
    editor.locator(".cm-tooltip-autocomplete li", has_text="causal_lm").click()
    playwright.expect(editor.locator("#document")).to_have_value("name: tried\ntask: causal_lm")
    editor.locator(".cm-line", has_text="task").hover(position={"x": 10, "y": 8})
    playwright.expect(editor.locator(".help")).to_contain_text("What the models learn.")

    # And a sweep is started without the mouse, as soon as the service has said that the text is one.
    write_document(editor, beginning.replace("name: quickstart", "name: from the keyboard"))
    playwright.expect(editor.locator("#submit")).to_be_disabled()
    playwright.expect(editor.locator("#submit")).to_be_enabled()
    editor.keyboard.press("ControlOrMeta+Enter")
    editor.wait_for_url("**/sweeps/*")
    editor.get_by_role("heading", name="from the keyboard").wait_for()
