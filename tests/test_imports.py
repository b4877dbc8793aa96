"""The import rules of docs/architecture.md, kept by import-linter's contracts in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([linter, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_a_service_starts_without_torch_and_what_only_some_answers_need() -> None:
    # Each of the others would add a second or more to every start and restart.
    heavy = ("torch", "onnx", "onnxruntime", "scipy.stats", "sklearn", "pandas")
    program = f"import service.app, sys; print([name for name in {heavy!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_client_needs_nothing_of_the_application() -> None:
    program = "import layersweep, sys; sys.exit(any(n in sys.modules for n in ('service', 'layers', 'workers')))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
