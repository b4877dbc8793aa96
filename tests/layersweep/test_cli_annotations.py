"""`layersweep sweep annotate`, and what lists show then."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from layersweep import Client
from layersweep.cli import app


def test_a_sweep_is_annotated_and_found_again(live_service: str, client: Client, document: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["sweep", *arguments], env={"LAYERSWEEP_SERVER": live_service})
        assert result.exit_code == 0, result.output
        return result.stdout

    run("submit", str(document), "--tag", "draft")
    assert "tagged draft, paper, v1" in run("annotate", "small", "--name", "first", "--tag", "paper", "--tag", "v1")
    run("annotate", "first", "--note", "the first one", "--untag", "v1", "--untag", "draft", "--archive")
    assert "No sweep keeps these filters." not in run("list", "--tag", "paper", "--archived")
    assert json.loads(run("list", "--json"))["items"] == []
    shown = json.loads(run("show", "first", "--json"))
    assert (shown["note"], shown["tags"], shown["archived"]) == ("the first one", ["paper"], True)
    assert "the first one" in run("show", "first")
    assert [sweep.name for sweep in client.sweeps(tag="paper", archived="show")] == ["first"]
    nothing = CliRunner().invoke(app, ["sweep", "annotate", "first"], env={"LAYERSWEEP_SERVER": live_service})
    assert nothing.exit_code == 2
