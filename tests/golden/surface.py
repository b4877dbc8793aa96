"""What programs depend on besides answers: commands and their options, settings, names of metrics."""

from __future__ import annotations

import json
import re
from typing import Any

import typer

from layersweep.cli import app
from service.settings import Settings

_METRIC = re.compile(r"^# (?:HELP|TYPE) (.*)$", re.MULTILINE)


def commands() -> str:
    """Every command with its help, arguments and options."""
    return json.dumps(_described(typer.main.get_command(app)), indent=1, ensure_ascii=False)


def _described(command: Any) -> dict[str, Any]:
    parameters = [
        {
            "names": [*parameter.opts, *parameter.secondary_opts],
            "kind": parameter.param_type_name,
            "required": parameter.required,
            "many": parameter.nargs != 1 or parameter.multiple,
            "default": _plain(parameter.default),
            "help": getattr(parameter, "help", None),
        }
        for parameter in command.params
    ]
    below = {name: _described(each) for name, each in sorted(getattr(command, "commands", {}).items())}
    return {"help": command.help, "parameters": parameters} | ({"commands": below} if below else {})


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else type(value).__name__


def settings() -> str:
    """Every setting with its default and its description."""
    described = {
        f"LAYERSWEEP_{name.upper()}": {"default": str(field.default), "description": field.description}
        for name, field in Settings.model_fields.items()
    }
    return json.dumps(described, indent=1, ensure_ascii=False)


def metrics(exposition: str) -> str:
    """The names, kinds and help texts of what a service counts; its own, not the interpreter's.

    When a labelled one was created stands there only once it was counted.
    """
    found = _METRIC.findall(exposition)
    lines = sorted(line for line in found if line.startswith("layersweep_") and "_created " not in line)
    return "\n".join(lines)
