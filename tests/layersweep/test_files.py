"""Files that are named to the client and the command line: whatever they are, read or refused in a line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from layersweep import Client, InvalidUsageError, ServiceFailureError, UnreachableError, documents, files
from layersweep.cli import app
from tests.layersweep.answers import scripted, sweep_record
from tests.layersweep.finisher import DOCUMENT

TEXT = "to be or not to be, that is the question. " * 200


@pytest.fixture
def pipe(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a named pipe into which a text is written, as a shell does for <(...)."""

    def make(text: str) -> Path:
        path = tmp_path / "63"
        os.mkfifo(path)
        threading.Thread(target=path.write_text, args=[text], daemon=True).start()
        return path

    return make


def test_a_dataset_comes_through_a_pipe(client: Client, pipe: Callable[[str], Path]) -> None:
    assert client.add_dataset("poem", pipe(TEXT))["size_bytes"] == len(TEXT)


def test_a_document_comes_through_a_pipe(client: Client, pipe: Callable[[str], Path]) -> None:
    assert client.submit(pipe(DOCUMENT)).name == "small"


def test_the_standard_input_is_a_file_as_well(live_service: str) -> None:
    command = [sys.executable, "-m", "layersweep"]
    environment = os.environ | {"LAYERSWEEP_SERVER": live_service}
    for given in (["dataset", "add", "--name", "poem", "--file", "/dev/stdin"], ["sweep", "validate", "-"]):
        text = TEXT if "add" in given else DOCUMENT
        ended = subprocess.run([*command, *given], input=text, capture_output=True, text=True, env=environment)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
        assert "/dev/stdin" not in ended.stdout
    assert ended.stdout.startswith("standard input is a valid sweep document.")


def unusable(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.write_text(TEXT)
        path.chmod(0)
    return Path("/dev/zero") if kind == "device" else path


@pytest.mark.parametrize("kind", ["missing", "folder", "device", "unreadable"])
def test_what_cannot_be_read_is_a_line_that_names_it(kind: str, tmp_path: Path) -> None:
    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = unusable(kind, tmp_path)
    for command in (["sweep", "submit"], ["sweep", "validate"], ["sweep", "check"], ["dataset", "add", "--name", "x"]):
        given = [*command, "--file", str(path)] if "add" in command else [*command, str(path)]
        refused = CliRunner().invoke(app, [*given, "--server", "http://127.0.0.1:9"])
        assert refused.exit_code == 2, refused.output
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert path.name in refused.stderr


def test_an_empty_file_is_refused_with_the_remedy(client: Client, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for command in (["sweep", "submit", str(empty)], ["dataset", "add", "--name", "x", "--file", str(empty)]):
        refused = CliRunner().invoke(app, [*command, "--server", client.server])
        assert (refused.exit_code, "Traceback" in refused.output) == (2, False), refused.output


def test_a_data_set_that_was_named_as_a_document_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 2**20)
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(2**20 + 1)
    with pytest.raises(InvalidUsageError, match="more than 1 MiB"):
        documents.read(large)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"

    def half() -> None:
        with files.written(path) as stream:
            stream.write(b"half")
            raise UnreachableError("the connection was lost")

    with pytest.raises(UnreachableError):
        half()
    assert list(tmp_path.iterdir()) == []
    path.write_text("before")
    path.chmod(0o640)
    with files.written(path) as stream:
        stream.write(b"after")
        assert path.read_text() == "before"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", 0o640)


WRITERS: list[list[str]] = [["report", "X", "--out", "FILE.md"], ["sweep", "export", "X", "FILE.csv"]]


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
@pytest.mark.parametrize("place", ["folder/missing/x", "file/x", "full"])
def test_what_cannot_be_written_is_a_line_that_names_it(
    command: list[str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for suffix in (".md", ".csv"):
        (tmp_path / f"full{suffix}").symlink_to("/dev/full")
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), httpx2.Response(200, text="text"))
    for module in ("results", "export"):
        monkeypatch.setattr(f"layersweep.cli.{module}.connect", lambda server: client)
    file = f"{tmp_path}/{place}"
    given = [each.replace("FILE", file).replace("X", "0" * 26) for each in command]
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code == 2, refused.output
    assert "cannot be written: " in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("output", "code", "said"), [("/dev/full", 2, "the output: No space left on device"), (None, 141, "")]
)
def test_an_output_that_is_full_or_that_nobody_reads(
    output: str | None, code: int, said: str, options: list[str], live_service: str
) -> None:
    command = [sys.executable, "-m", "layersweep", "layers", *options, "--server", live_service]
    if output is None:
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(output, os.O_WRONLY)
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert ended.returncode == code
    assert ended.stderr.strip() == (f"error: {said}" if said else "")


def test_an_interruption_ends_in_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: str) -> Any:
        raise KeyboardInterrupt

    for name in ("results.connect", "sweeps.connect_patiently", "catalog.datasets.connect"):
        monkeypatch.setattr(f"layersweep.cli.{name}", interrupted)
    for command in (["sweep", "watch", "x"], ["leaderboard", "x"], ["dataset", "list"]):
        ended = CliRunner().invoke(app, command)
        assert (ended.exit_code, ended.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/b", ".."])
def test_an_archive_writes_into_its_folder_alone(name: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(ServiceFailureError, match="not the name of a file"):
        files.unpack(packed, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ServiceFailureError, match="damaged"):
        files.unpack(io.BytesIO(b"no archive"), tmp_path / "new")


def test_nothing_of_a_damaged_archive_is_written(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.safetensors", "weights")
    damaged = io.BytesIO(packed.getvalue().replace(b"weights", b"Weights"))
    with pytest.raises(ServiceFailureError, match="damaged"):
        files.unpack(damaged, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_variable_is_read_from_the_file_that_another_one_names(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("lsw_secret\n")
    environment = {"LAYERSWEEP_TOKEN_FILE": str(tmp_path / "token"), "LAYERSWEEP_PORT": "1", "OTHER_FILE": "x"}
    files.read_variables(environment)
    source = {"LAYERSWEEP_TOKEN_SOURCE": str(tmp_path / "token")}
    assert environment == {"LAYERSWEEP_TOKEN": "lsw_secret", "LAYERSWEEP_PORT": "1", "OTHER_FILE": "x"} | source


def test_a_variable_is_read_again_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    environment = {"LAYERSWEEP_TOKEN_FILE": str(file)}
    files.read_variables(environment)
    assert not files.read_again(environment, "LAYERSWEEP_TOKEN"), "it is the same"
    for content in ("", None, "\n"):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        assert not files.read_again(environment, "LAYERSWEEP_TOKEN"), "nothing usable is there now"
    file.write_text("new\n")
    assert files.read_again(environment, "LAYERSWEEP_TOKEN")
    assert environment["LAYERSWEEP_TOKEN"] == "new"
    assert not files.read_again({"LAYERSWEEP_TOKEN": "given"}, "LAYERSWEEP_TOKEN"), "it came from no file"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"LAYERSWEEP_TOKEN_FILE": "/nowhere"}, "/nowhere cannot be read"),
        ({"LAYERSWEEP_TOKEN_FILE": "/nowhere", "LAYERSWEEP_TOKEN": "x"}, "are both set: leave one out"),
    ],
)
def test_a_variable_s_file_that_cannot_be_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidUsageError, match=said):
        files.read_variables(given)
