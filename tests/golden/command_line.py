"""Commands against the recorded service: exit code, what is printed, and the shape of what scripts read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from layersweep import transport
from layersweep.cli import app, common
from tests.golden.documents import PROBE
from tests.golden.normalising import Normaliser
from tests.golden.world import World

READING = """
--version
nothing
sweep
sweep show
sweep list
sweep list --json --limit 2
sweep list --limit nothing
sweep list --server http://127.0.0.1:9
sweep list --server nowhere
sweep show language
sweep show language --json
sweep show nothing
sweep show shapes --document
sweep show {paused}
sweep watch language --timeout 9
sweep watch sequences --timeout 9
sweep watch failing --timeout 9
sweep watch nothing
sweep validate {files}/good.yaml
sweep validate {files}/good.yaml --json
sweep validate {files}/wrong.yaml
sweep validate {files}/torn.yaml
sweep validate {files}/missing.yaml
sweep submit {files}/wrong.yaml
sweep export language {files}/trials.csv
sweep export language {files}/missing/trials.csv
sweep cancel language
sweep extend failing
leaderboard language
leaderboard opinions --json --sort=-accuracy
leaderboard shapes --csv
leaderboard language --sort nothing
leaderboard opinions
leaderboard shapes
leaderboard sequences
leaderboard failing
leaderboard confirmation
leaderboard nothing --json
recommendation language
recommendation language --json
recommendation language --prefer latency_ms_p50
recommendation language --prefer nothing
recommendation opinions
recommendation sequences
recommendation shapes --configuration
recommendation shapes --within parameter_count:50%
recommendation shapes --weight latency_ms_p50:1 --weight parameter_count:3
recommendation failing
report shapes
report failing
report language --out {files}/report.html
report language --out {files}/report.pdf
trial show {trial language/0}
trial show {trial language/0} --json
trial show {trial language/0} --log
trial show {trial failing/0}
trial show nothing
trial download {trial language/0} {files}/artifacts
trial download {trial failing/0} {files}/artifacts
trial download {trial language/0} {files}/artifacts --format transformers
checkpoint list
checkpoint show nothing
checkpoint add {files}
dataset list
dataset list --json
dataset show letters
dataset show letters --json
dataset show opinions
dataset show nothing
dataset add --name more --file {files}/missing.txt --task causal_lm
dataset add --name letters --file {files}/text.txt --task causal_lm
dataset add --name more --file {files}/text.txt --task nothing
layers norm
layers model
layers nothing
presets nanogpt-char-cpu
presets nothing
workers
workers --json
token list
token list --json
token create --name more --scope nothing
token revoke nothing
project list
project list --json
webhook list
webhook list --json
webhook deliveries {webhook}
webhook deliveries {webhook} --json
webhook create http://127.0.0.1/hook
webhook show
webhook ping nothing
confirm failing
confirm shapes
"""

CHANGING = """
sweep pause paused
sweep pause paused --json
sweep resume paused
sweep extend paused --trials 2
sweep extend paused --trials 2 --json
sweep clone shapes
sweep clone shapes --json
sweep submit {files}/good.yaml
sweep submit {files}/good.yaml --json
sweep cancel good
sweep cancel good --json
sweep delete good
sweep delete paused
dataset add --name more --file {files}/text.txt --task causal_lm --tokenizer char --validation 0.2
dataset add --name most --file {files}/text.txt --task causal_lm --tokenizer char --validation 0.2 --json
token create --name more --scope read
token create --name most --scope read --json
token revoke {token ci}
project create speech
project create speech
webhook ping {webhook}
webhook ping {webhook} --json
webhook change {webhook} --event sweep.completed
webhook rotate {webhook}
webhook disable {webhook}
webhook ping {webhook}
webhook enable {webhook}
webhook delete {webhook}
confirm language --candidates 1 --seeds 2
confirm language --candidates 1 --seeds 2 --json
"""

_SECRETS = re.compile(r"\b(?:lsw_|whsec_)[\w+/=-]{20,}")
_AGE = re.compile(r"\b(?:\d+ (?:s|min) ago|just now)\b")
_EXPIRY = re.compile(r"(?<=valid until )20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC")
_WATCHED = re.compile(r"^\[ *(?:< )?\d[\w. ]* \w+\]", re.MULTILINE)
_ENVIRONMENT = {
    "COLUMNS": "140",
    "LINES": "40",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "LAYERSWEEP_SERVER": "http://testserver",
}


def read(world: World, files: Path) -> dict[str, str]:
    """File name of each recording -> what commands said, those that change something last."""
    _write(files)
    return {f"{name}.txt": told(world, files, lines) for name, lines in (("reading", READING), ("changing", CHANGING))}


def told(world: World, files: Path, lines: str) -> str:
    """What the commands of these lines said, one after the other."""
    names = {**world.ids, "files": str(files)}
    environment = _ENVIRONMENT | {"LAYERSWEEP_TOKEN": world.secret}
    normaliser = Normaliser(world.names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "RETRY_SECONDS", 0.0)
        patch.setattr(common, "PATIENT_RETRY_SECONDS", 0.0)
        for console in (common.out, common.err):
            # A console that was made where COLUMNS is set, as beside other tests, keeps that width.
            patch.setattr(console, "_width", int(_ENVIRONMENT["COLUMNS"]))
        _in_this_process(patch, world)
        return "\n\n".join(_told(line, names, environment, normaliser) for line in lines.strip().splitlines())


def _write(files: Path) -> None:
    (files / "good.yaml").write_text(yaml.safe_dump(PROBE | {"name": "good"}, sort_keys=False))
    (files / "wrong.yaml").write_text(yaml.safe_dump(PROBE | {"task": "poetry", "budget": {"trials": 0}}))
    (files / "torn.yaml").write_text("task: [causal_lm\nmodel: {")
    (files / "text.txt").write_text("".join(f"line {number} of a text\n" for number in range(400)))


def _in_this_process(patch: pytest.MonkeyPatch, world: World) -> None:
    """Let clients of the recorded service talk to it without a socket."""
    connect = transport.Transport.__init__

    def connect_here(self: transport.Transport, server: str, *arguments: Any, **options: Any) -> None:
        here = world.client._transport if server == _ENVIRONMENT["LAYERSWEEP_SERVER"] else None
        connect(self, server, *arguments, **options | {"transport": here})

    patch.setattr(transport.Transport, "__init__", connect_here)


def _told(line: str, names: dict[str, str], environment: dict[str, str], normaliser: Normaliser) -> str:
    words = [re.sub(r"\{(.+?)\}", lambda found: names[found.group(1)], word) for word in _words(line)]
    result = CliRunner().invoke(app, words, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), f"{line}: {result.exception!r}"
    printed = result.stdout.replace(names["files"], "{files}")
    if "--json" in words and printed.lstrip().startswith(("{", "[")):
        printed = json.dumps(shape(json.loads(printed)), indent=1)
    said = result.stderr.replace(names["files"], "{files}")
    parts = [f"$ layersweep {line}", printed.rstrip(), *(["--- stderr", said.rstrip()] if said else [])]
    told = "\n".join(part for part in [*parts, f"--- exit code {result.exit_code}"] if part)
    told = normaliser.text("\n".join(each.rstrip() for each in told.split("\n")))
    told = _AGE.sub("<age>", _EXPIRY.sub("<time>", told))
    return _WATCHED.sub("[<time>]", _SECRETS.sub("<secret>", told))


def _words(line: str) -> list[str]:
    kept = re.sub(r"\{(.+?)\}", lambda found: found.group().replace(" ", "\0"), line)
    return [word.replace("\0", " ") for word in shlex.split(kept)]


def shape(value: Any) -> Any:
    """The keys of a JSON value and the types of what they have; a list is the shape of all its members together."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_together([shape(each) for each in value])] if value else []
    return {type(None): "null", bool: "boolean", str: "text"}.get(type(value), "number")


def _together(shapes: list[Any]) -> Any:
    if all(isinstance(each, dict) for each in shapes):
        keys = dict.fromkeys(key for each in shapes for key in each)
        return {key: _together([each[key] for each in shapes if key in each]) for key in keys}
    if all(isinstance(each, list) for each in shapes):
        return [_together([member for each in shapes for member in each])] if any(shapes) else []
    return " or ".join(sorted({each if isinstance(each, str) else json.dumps(each) for each in shapes}))
