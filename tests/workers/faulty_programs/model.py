"""The torch child with some functions replaced: they fail while the file $FAULT_FILE says so. Run by its path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from workers.processes import model_graphs, torch_child
from workers.training import loop

_fault = Path(os.environ["FAULT_FILE"])
_step, _export = loop.Training._step, model_graphs.export


def faulty_step(self: loop.Training, *arguments: Any) -> None:
    if _fault.read_text() == "memory at training":
        torch.empty(1 << 50)
    _step(self, *arguments)


def faulty_export(module: Any, inputs: Any, path: Path, **options: Any) -> Any:
    if _fault.read_text() == "disk at export":
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/full")
    return _export(module, inputs, path, **options)


if __name__ == "__main__":
    loop.Training._step, model_graphs.export = faulty_step, faulty_export
    torch_child.main()
