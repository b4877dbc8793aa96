"""What docs/first-hour.md tells to type, as far as it needs no make: its commands and its sweep document."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from layersweep.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "first-hour.md"

TEXT = "".join(f"The {n}th line of a text says that {n} times {n} is {n * n}.\n" for n in range(1, 2500))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def document() -> dict[str, Any]:
    (text,) = blocks("yaml")
    return yaml.safe_load(text)


def commands() -> list[list[str]]:
    """The words of each `layersweep` command, in order."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(".venv/bin/layersweep ")]


def make_targets() -> set[str]:
    """What it has make do."""
    return set(re.findall(r"^make ([a-z-]+)", "".join(blocks("sh")), re.MULTILINE))


def follow(folder: Path, written: dict[str, Any]) -> list[str]:
    """Run every command in this folder, which is the current one, with this sweep document; returns what they print."""
    (folder / "mytext.txt").write_text(TEXT)
    (folder / "first-hour.yaml").write_text(yaml.safe_dump(written))
    printed: list[str] = []
    for command in commands():
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output)
        printed.append(result.output)
    return printed
