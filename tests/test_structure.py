"""The shape of the source: what imports what, how large folders and files may be, and that every package has a rule."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("service", "layers", "workers", "layersweep")
MAX_LINES = 420
MAX_MODULES = 16
MANY_MODULES = {"service/routes"}
"""One thin file for each noun of the API, however many they are."""

Graph = dict[str, set[str]]


def source_files(root: Path, sources: tuple[str, ...] = SOURCES) -> dict[str, Path]:
    """Module -> file. A package is its `__init__.py`."""
    files = [file for source in sources for file in sorted((root / source).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(module: str, file: Path, known: Mapping[str, Path]) -> set[str]:
    """The known modules that a file names in an import: anywhere in it, also where only a type checker reads."""
    return {
        found
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for found in _imported(node, module if file.name == "__init__.py" else module.rpartition(".")[0], known)
    } - {module}


def _imported(node: ast.AST, package: str, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
            base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            name = f"{base}.{alias.name}"
            if name in known:
                yield name
            elif base in known:
                yield base


def import_graph(root: Path, sources: tuple[str, ...] = SOURCES) -> Graph:
    files = source_files(root, sources)
    return {module: imports(module, file, files) for module, file in files.items()}


def packages_of(graph: Graph, top: str) -> Graph:
    """The same imports between the direct children of one package: its packages and its own modules."""

    def child(module: str) -> str:
        return ".".join(module.split(".")[:2])

    inside = [module for module in graph if module.startswith(f"{top}.")]
    packages: Graph = {child(module): set() for module in inside}
    for module in inside:
        packages[child(module)] |= {child(found) for found in graph[module] if found.startswith(f"{top}.")}
    return {package: found - {package} for package, found in packages.items()}


def circle(graph: Graph) -> list[str]:
    """Modules of which each imports the next, the last being the first again; empty where there are none."""
    try:
        TopologicalSorter({module: sorted(found) for module, found in sorted(graph.items())}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("source", SOURCES)
def test_no_files_import_one_another_in_a_circle(source: str) -> None:
    assert circle(import_graph(ROOT, (source,))) == []


def test_no_packages_of_the_service_import_one_another() -> None:
    assert circle(packages_of(import_graph(ROOT, ("service",)), "service")) == []


def test_every_package_of_the_service_is_in_a_contract_of_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = {
        f"{container}.{name.strip().strip('()')}"
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract["containers"]
        for layer in contract["layers"]
        for name in layer.replace("|", ":").split(":")
    }
    packages = {f"service.{file.parent.name}" for file in (ROOT / "service").glob("*/*.py")}
    assert packages
    assert packages - layered == set()


def test_no_folder_has_more_modules_than_a_reader_can_survey() -> None:
    files = source_files(ROOT).values()
    modules = Counter(str(file.parent.relative_to(ROOT)) for file in files if file.name != "__init__.py")
    assert {folder: n for folder, n in modules.items() if n > MAX_MODULES and folder not in MANY_MODULES} == {}


def test_docstrings_name_errors_as_they_are_called() -> None:
    """`Unavailable` for `UnavailableError`: who wants to catch what is raised would look for it in vain."""
    trees = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in source_files(ROOT).items()}
    classes = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    wrong = {
        f"{module}.{node.name}": name
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for sentence in re.findall(r"Raises? [^.]*", ast.get_docstring(node) or "")
        for name in re.findall(r"[A-Z]\w+", sentence)
        if f"{name}Error" in classes and name not in {*classes, "Layersweep"}
    }
    assert wrong == {}


def test_no_module_is_too_long() -> None:
    lines = {module: len(file.read_text().splitlines()) for module, file in source_files(ROOT).items()}
    assert {module: n for module, n in lines.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    "written",
    [
        "from made.b import B",
        "import made.b",
        "from made import b",
        "from . import b",
        "from .b import B",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.b import B",
        "def use() -> None:\n    from made.b import B",
    ],
)
def test_a_circle_is_seen_however_it_is_written(written: str, tmp_path: Path) -> None:
    package = tmp_path / "made"
    package.mkdir()
    for name, text in {"__init__": "", "a": written, "b": "import made.c", "c": "from made.a import A"}.items():
        (package / f"{name}.py").write_text(text)
    assert set(circle(import_graph(tmp_path, ("made",)))) == {"made.a", "made.b", "made.c"}
