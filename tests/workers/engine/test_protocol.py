"""The child's side of the protocol, driven over real descriptors by a child of a few verbs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.workers.engine_parent import ROOT, Parent, Refused

PROGRAM = ("-m", "tests.workers.engine.answering_child")


@pytest.fixture
def child() -> Iterator[Parent]:
    with Parent(*PROGRAM) as parent:
        yield parent


def test_a_request_gets_its_result_and_its_identity(child: Parent) -> None:
    child.send(b'{"id": {"any": ["json"]}, "verb": "echo", "value": [1, "two", null]}\n')
    assert child.answer() == {"id": {"any": ["json"]}, "ok": True, "result": {"value": [1, "two", None]}}


def test_requests_are_answered_in_order(child: Parent) -> None:
    identities = [child.post("echo", value=value) for value in range(50)]
    answers = [child.answer() for _ in identities]
    assert [answer["id"] for answer in answers] == identities
    assert [answer["result"]["value"] for answer in answers] == list(range(50))


def test_progress_comes_before_the_result_with_its_identity(child: Parent) -> None:
    identity = child.post("count")
    assert child.answer() == {"id": identity, "ok": True, "result": {"steps": 3}}
    assert child.progress == [{"id": identity, "progress": {"step": step}} for step in range(3)]


def test_what_libraries_and_grandchildren_print_or_read_disturbs_nothing() -> None:
    with Parent(*PROGRAM, output=subprocess.PIPE) as child:
        assert child.process.stdout is not None
        assert child.process.stderr is not None
        identity = child.post("noisy")
        following = child.post("echo", value="still mine")
        assert child.answer() == {"id": identity, "ok": True, "result": {}}
        assert child.answer() == {"id": following, "ok": True, "result": {"value": "still mine"}}
        assert child.end() == 0
        assert b"from stdout" in child.process.stdout.read()
        assert child.process.stderr.read() == b"native warning"
        child.process.stdout.close()
        child.process.stderr.close()


def test_answers_on_stdout_itself_stay_alone_there() -> None:
    requests = b'{"id": 1, "verb": "noisy"}\n{"id": 2, "verb": "echo", "value": 3}\n'
    done = subprocess.run(
        [sys.executable, *PROGRAM, "--answers-fd", "1"],
        input=requests,
        capture_output=True,
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]
    assert b"from stdout" in done.stderr


def test_a_line_may_come_in_pieces(child: Parent) -> None:
    for piece in (b'{"id": 7, "ver', b'b": "echo", "val', b'ue": "\xc3', b'\xa4"}', b"\n"):
        child.send(piece)
    assert child.answer() == {"id": 7, "ok": True, "result": {"value": "ä"}}


def test_a_line_of_ten_megabytes_is_a_request(child: Parent) -> None:
    text = "x" * 10_000_000
    assert child.ask("echo", value=text) == {"value": text}


def test_a_line_without_end_is_refused_and_skipped(child: Parent) -> None:
    block = b"y" * (1 << 20)
    for _ in range(66):
        child.send(block)
    child.send(b"\n")
    answer = child.answer()
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "invalid"
    assert "by file" in answer["error"]["message"]
    assert child.ask("echo", value=1) == {"value": 1}


@pytest.mark.parametrize(
    ("line", "identity", "message"),
    [
        (b"{", None, "one JSON object on a line"),
        (b"\xff\xfe", None, "one JSON object on a line"),
        (b"[" * 100_000, None, "one JSON object on a line"),
        (b"[1, 2]", None, "not list"),
        (b'{"id": 5}', 5, "unknown verb None; this process knows: count, crash, echo"),
        (b'{"id": 6, "verb": "fly"}', 6, "unknown verb 'fly'"),
        (b'{"id": 7, "verb": ["echo"]}', 7, "unknown verb"),
    ],
)
def test_what_is_no_request_is_refused(child: Parent, line: bytes, identity: int | None, message: str) -> None:
    child.send(line + b"\n\n  \n")
    answer = child.answer()
    assert answer["id"] == identity
    assert answer["error"]["kind"] == "invalid"
    assert message in answer["error"]["message"]
    assert child.ask("echo", value=1) == {"value": 1}


@pytest.mark.parametrize("kind", ["build", "out_of_memory", "unsupported", "invalid", "internal"])
def test_a_refusal_keeps_its_kind(child: Parent, kind: str) -> None:
    with pytest.raises(Refused, match="as asked") as refused:
        child.ask("refuse", kind=kind)
    assert refused.value.kind == kind


def test_every_other_failure_is_answered_too(child: Parent) -> None:
    for verb, value, kind, message in (
        ("run_out", None, "out_of_memory", "out of memory"),
        ("crash", "missing", "internal", "KeyError: 'missing'"),
        ("not_json", "nan", "internal", "ValueError"),
        ("not_json", "object", "internal", "TypeError"),
    ):
        with pytest.raises(Refused, match=message) as refused:
            child.ask(verb, value=value)
        assert refused.value.kind == kind
    assert child.ask("echo", value=1) == {"value": 1}


def test_an_immediate_verb_is_answered_while_another_works(child: Parent) -> None:
    waiting = child.post("wait")
    assert json.loads(child.answers.readline()) == {"id": waiting, "progress": {"waiting": True}}
    releasing = child.post("release")
    answers = [child.answer(), child.answer()]
    assert {"id": releasing, "ok": True, "result": {}} in answers
    assert {"id": waiting, "ok": True, "result": {"released": True}} in answers


def test_the_end_of_stdin_ends_it_after_the_last_answer(child: Parent) -> None:
    identities = [child.post("count") for _ in range(5)]
    assert child.end() == 0
    assert [child.answer()["id"] for _ in identities] == identities
    assert child.answers.read() == b""


def test_an_unfinished_line_at_the_end_is_refused(child: Parent) -> None:
    child.send(b'{"id": 1, "verb": "ec')
    assert child.end() == 0
    assert child.answer()["error"]["kind"] == "invalid"


def test_it_ends_at_once_when_its_parent_is_gone(child: Parent) -> None:
    """Both pipes lose their other end, as when the parent is killed; the handler would go on for a minute."""
    child.post("wait")
    child.answers.readline()
    assert child.process.stdin is not None
    child.answers.close()
    child.process.stdin.close()
    assert child.process.wait(30) == 0


def test_an_interrupt_is_left_to_the_parent(child: Parent) -> None:
    child.ask("echo")
    os.kill(child.process.pid, signal.SIGINT)
    assert child.ask("echo", value="here") == {"value": "here"}
