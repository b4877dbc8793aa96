"""The composite action for GitHub, its script run by bash against a stand-in for the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ACTION = Path(__file__).parents[2] / ".github" / "actions" / "layersweep-assert" / "action.yml"
LIMITS = ["latency_ms_p50 <= 1.02 * baseline", "memory_bytes <= $(touch pwned)"]


@pytest.mark.parametrize(("baseline", "strict", "code"), [("", "false", 0), ("ci/my baseline.json", "true", 4)])
def test_the_action_calls_the_command_with_its_inputs(tmp_path: Path, baseline: str, strict: str, code: int) -> None:
    options = [] if strict == "false" else ["--builds", "6", "--timeout", "1800"]
    action = yaml.safe_load(ACTION.read_text())
    step = action["runs"]["steps"][-1]
    inputs = {name: given.get("default", "") for name, given in action["inputs"].items()} | {
        "sweep": "it; false",
        "limits": "\n".join([*LIMITS, "", ""]),
        "baseline": baseline,
        "strict": strict,
        **{name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)},
    }
    variables = {name: inputs[source.strip("${} ").removeprefix("inputs.")] for name, source in step["env"].items()}
    stand_in = tmp_path / "layersweep"
    stand_in.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > "{tmp_path}/arguments"\nexit {code}\n')
    stand_in.chmod(0o755)
    output = tmp_path / "output"
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_OUTPUT": str(output), **variables},
        cwd=tmp_path,
    )
    assert (ran.returncode, output.read_text()) == (code, f"exit-code={code}\n")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    expected = ["--most-builds", "40", *options, "--metric", LIMITS[0], "--metric", LIMITS[1]]
    expected += ["--baseline", baseline] if baseline else []
    expected += ["--junit", "layersweep-junit.xml"] + (["--strict"] if strict == "true" else [])
    assert arguments == ["sweep", "assert", *expected, "--", "it; false"]
    assert not (tmp_path / "pwned").exists()
