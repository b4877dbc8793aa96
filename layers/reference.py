"""The page docs/layers.md, made of the declarations: `python -m layers.reference` prints it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.kinds import KINDS, kinds_with
from layers.declarations.model import APPLIES, DECLARATIONS
from layers.declarations.training import TRAINING
from layers.parameter import REQUIRED, Parameter, SearchDefault, in_full
from layers.problems import shown
from layers.targets import in_words

HEADER = """# Layers and their parameters

`make docs` writes this page from the declarations in `layers/`. A running service answers the same at
`GET /v1/layers`, and `layersweep layers attention` prints one section.

- You can give every parameter a value, or search it as [the sweep document](sweep-document.md#parameters) says.
  `default_space` stands for the search default in the last column.
- `follows` means that the default depends on other parameters or on the data; the meaning says how.
- `per_layer: true` makes a parameter of a block (`attention`, `mlp`, `norm`, `norm_position`, `residual`,
  `shared_norm`) independent in each layer. All layers of a stack share `attention.cross_attention` and
  `attention.max_position_embeddings`.
- `targets` says which [runtimes](targets.md) support a parameter, or a value of it.

## Kinds of models

| kind | task | what it is |
|---|---|---|
"""

COLUMNS = """
| parameter | takes | default | meaning | applies | targets | source | search default |
|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page, as it lies in docs/layers.md."""
    kinds = "".join(f"| `{name}` | {kind.task} | {kind.meaning} |\n" for name, kind in KINDS.items())
    sections: dict[str, dict[str, Parameter]] = {}
    for path, parameter in DECLARATIONS.items():
        sections.setdefault(path.rpartition(".")[0] or "model", {})[path] = parameter
    for name, declared in (("training", TRAINING), ("inference", INFERENCE)):
        sections[name] = {f"{name}.{key}": parameter for key, parameter in declared.items()}
    return HEADER + kinds + "".join(_section(name, parameters) for name, parameters in sections.items())


def _section(name: str, parameters: Mapping[str, Parameter]) -> str:
    return f"\n## {name}\n{COLUMNS}" + "".join(_row(path, parameter) for path, parameter in parameters.items())


def _row(path: str, parameter: Parameter) -> str:
    cells = (
        f"`{path}`",
        _takes(parameter),
        _default(parameter),
        parameter.meaning,
        _applies(path),
        in_words(path),
        parameter.source,
        _search(parameter.search),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _takes(parameter: Parameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.type in ("integer", "number"):
        return f"{parameter.type} from {in_full(parameter.minimum)} to {in_full(parameter.maximum)}"
    return "true or false" if parameter.type == "boolean" else parameter.type


def _default(parameter: Parameter) -> str:
    if parameter.default is REQUIRED:
        return "required"
    return "follows" if parameter.default is None else f"`{shown(parameter.default).strip(chr(39))}`"


def _applies(path: str) -> str:
    """To which kinds of models, and under which condition."""
    if path not in DECLARATIONS:
        return ""
    kinds = kinds_with(path)
    where = [] if len(kinds) == len(KINDS) else [", ".join(kinds)]
    return "; ".join([*where, *([f"`{APPLIES[path]}`"] if path in APPLIES else [])])


def _search(search: SearchDefault | None) -> str:
    if search is None:
        return ""
    if "values" in search:
        return ", ".join(shown(value).strip("'") for value in search["values"])
    least, most = search.get("min", 0), search.get("max", 0)
    return f"{in_full(least)} to {in_full(most)}" + (", logarithmic" if search.get("log") else "")


if __name__ == "__main__":
    sys.stdout.write(page())
