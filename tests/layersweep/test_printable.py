"""What others wrote is shown, and neither commands a terminal, nor turns what is read, nor forges a line."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import httpx2
import pytest
import yaml
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from layersweep import logs
from layersweep.cli import app
from layersweep.display.printable import is_printable, printable, printable_json
from layersweep.display.terminal import Terminal, as_yaml
from service.web.rendering import environment
from tests.layersweep.answers import row, scripted, sweep_record

HOSTILE = "\x1b]0;title\x07 \x9b2J \x1b[8m \u202egpj.exe\u2066 [red]x[/] [/nothing] \r\ud800 \x00"
CONTROLS = ("\x1b", "\x9b", "\x07", "\u202e", "\u2066", "\r", "\x00", "\ud800")


def obeyed(text: str) -> list[str]:
    return [repr(character) for character in CONTROLS if character in text]


def test_controls_and_turns_of_direction_are_written_as_escapes() -> None:
    assert printable("a\x1b]0;x\x9b\u202eb\U000e0041\tc\nd") == "a\\x1b]0;x\\x9b\\u202eb\\U000e0041\tc\nd"
    assert is_printable("naïve 日本語 👩\u200d🔬 ★\n")
    assert json.loads(printable_json(json.dumps(HOSTILE, ensure_ascii=False))) == HOSTILE
    assert obeyed(printable_json(json.dumps(HOSTILE, ensure_ascii=False))) == []


@pytest.mark.parametrize("kind", ["text", "string", "styled", "cell", "string cell", "head"])
def test_a_console_escapes_whatever_it_is_given(kind: str) -> None:
    console = Terminal(file=io.StringIO(), width=200)
    table = Table(*([HOSTILE] if kind == "head" else ["head"]))
    table.add_row(Text(HOSTILE) if kind == "cell" else HOSTILE)
    styled = Text.assemble(("before ", "bold"), (HOSTILE, "red"), ("after", "bold"))
    console.print({"text": Text(HOSTILE), "string": HOSTILE, "styled": styled}.get(kind, table))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert obeyed(printed) == []
    assert "\\x1b]0;title" in printed
    assert "[red]x[/] [/nothing]" in printed


def test_styles_stay_where_they_were() -> None:
    console = Terminal(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    console.print(Text.assemble("\u202e", ("red", "red"), "plain"))
    assert "\\u202e\x1b[31mred\x1b[0mplain" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["a\u202eb", "a\x9bb", "ü\u2066"])
def test_yaml_to_paste_means_the_same(text: str) -> None:
    written = as_yaml({"name": text, "plain": "ü"})
    assert is_printable(written)
    assert yaml.safe_load(written) == {"name": text, "plain": "ü"}


def trial(**changes: Any) -> dict[str, Any]:
    attempt = {"attempt": 1, "outcome": HOSTILE, "reason": HOSTILE, "log": HOSTILE, "phases": [], "worker": HOSTILE}
    attempt["phases"] = [{"phase": HOSTILE, "seconds": 1.0}]
    record: dict[str, Any] = row(1) | {
        "id": "01J00000000000000000000001",
        "sweep": "01J0000000000000000000000A",
        "reason": HOSTILE,
        "violations": {HOSTILE: 1.0},
        "metrics": {HOSTILE: 1.0},
        "attempts": [attempt],
        "configuration": {"task": HOSTILE, "model": {HOSTILE: HOSTILE}},
    }
    return record | changes


WORKER = {
    "id": "w",
    "name": HOSTILE,
    "device": {"model": HOSTILE},
    "targets": [{"runtime": HOSTILE, "version": HOSTILE}],
    "alive": True,
    "last_seen_at": HOSTILE,
    "trial": HOSTILE,
    "executions": [
        {"trial": "t", "sweep_name": HOSTILE, "number": 1, "phase": HOSTILE, "since": HOSTILE, "waiting_for": HOSTILE}
    ],
}

REFUSAL = {"status": 409, "type": HOSTILE, "detail": HOSTILE, "errors": [{"pointer": HOSTILE, "detail": HOSTILE}]}


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        (["trial", "show", "01J00000000000000000000001"], [trial()]),
        (["trial", "show", "01J00000000000000000000001", "--log"], [trial()]),
        (["trial", "show", "01J00000000000000000000001", "--json"], [trial()]),
        (["workers"], [{"items": [WORKER], "next_page_token": None}]),
        (["workers", "--json"], [{"items": [WORKER], "next_page_token": None}]),
        (["sweep", "list"], [{"items": [sweep_record(name=HOSTILE, state=HOSTILE)], "next_page_token": None}]),
        (["sweep", "show", "0" * 26], [sweep_record(name=HOSTILE, reason=HOSTILE, target=HOSTILE)]),
        (["sweep", "show", "0" * 26, "--document"], [sweep_record(document={"name": HOSTILE})]),
        (["sweep", "cancel", "0" * 26], [REFUSAL]),
        (["report", "0" * 26], [sweep_record(), HOSTILE]),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) and isinstance(given[0], str) else "",
)
def test_no_command_emits_what_a_worker_wrote_as_it_is(
    command: list[str], answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(answer: Any) -> httpx2.Response:
        if isinstance(answer, str):
            return httpx2.Response(200, content=answer.encode("utf-8", "replace"))
        return httpx2.Response(answer.get("status", 200), content=json.dumps(answer).encode())

    client, script, _ = scripted(*map(given, answers))
    monkeypatch.setattr("layersweep.cli.common.Client", lambda server, **_: client)
    result = CliRunner().invoke(app, command)
    assert script.requests, result.output
    assert obeyed(result.output) == [], result.output
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


@pytest.mark.parametrize("form", logs.FORMS)
def test_a_line_of_the_log_is_one_line_whatever_it_echoes(form: logs.Form) -> None:
    stream = io.StringIO()
    handler = logs.handler(form, stream)
    forged = "gone\n2026-01-01 00:00:00,000 INFO service: all is well \x1b[2J\u202e"
    try:
        raise ValueError(forged)
    except ValueError:
        record = logging.LogRecord("service", logging.ERROR, "", 0, "worker says %s", (forged,), sys.exc_info())
    handler.handle(record)
    written = stream.getvalue()
    assert obeyed(written) == []
    assert [line for line in written.splitlines() if line.startswith("2026-01-01")] == []
    if form == "json":
        assert json.loads(written)["message"] == f"worker says {forged}"


def test_pages_show_no_turned_text() -> None:
    shown = environment().from_string("<p>{{ text }}</p>{{ marked }}").render(text=HOSTILE, marked="<b>")
    assert obeyed(shown) == []
    assert "\\u202egpj.exe" in shown
    assert "&lt;b&gt;" in shown
