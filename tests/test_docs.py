"""What the documentation says about settings, dependencies and files is true."""

import re
import tomllib
from pathlib import Path

import pytest

from layersweep.cli import app, common
from service.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES += [*(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks" / "findings").glob("*.md")]


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`(LAYERSWEEP_[A-Z_]+)`", (ROOT / "docs" / "settings.md").read_text()))
    assert {f"LAYERSWEEP_{name.upper()}" for name in Settings.model_fields} <= documented


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in required}
    assert [name for name in sorted(names) if name not in reasons] == []


def test_every_exit_code_is_documented() -> None:
    documented = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "command-line.md").read_text(), re.MULTILINE)
    codes = {value for name, value in vars(common).items() if name.startswith("EXIT_")}
    assert set(map(int, documented)) == {0} | codes
    assert all(f"{code} " in (app.info.epilog or "") for code in documented)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_name_headings_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text())
    within = [(page.parent / file if file else page, anchor) for file, anchor in links if "://" not in file]
    assert [f"{file.name}#{anchor}" for file, anchor in within if anchor not in anchors(file)] == []


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text())) <= targets


def test_each_block_of_commands_for_operators_says_whether_it_was_run() -> None:
    *before, _ = re.split(r"^```sh$\n", (ROOT / "docs" / "operating.md").read_text(), flags=re.MULTILINE)
    paragraphs = [each.strip().rsplit("\n\n", 1)[-1] for each in before]
    said = re.compile(r"[Nn]ot run by us|[Rr]un by us on 20\d\d-\d\d-\d\d")
    assert [paragraph for paragraph in paragraphs if not said.search(paragraph)] == []
