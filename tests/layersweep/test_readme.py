"""The README's Python is run as it stands; only the service's address is another one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from layersweep import Client
from tests.layersweep.finisher import Finisher

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_python_runs(live_service: str, finisher: Finisher) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    finisher.start()
    for block in blocks:
        assert "http://127.0.0.1:8420" in block
        program = block.replace("http://127.0.0.1:8420", live_service)
        ran = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert "hidden_size" in ran.stdout


def test_the_quickstart_is_a_valid_document_of_at_least_twelve_trials(client: Client) -> None:
    preview = client.validate(ROOT / "examples" / "quickstart.yaml")
    assert preview["document"]["budget"]["trials"] >= 12
    assert preview["space"]["feasible_share"] == 1
    assert preview["notes"] == []
