"""Children for trials that end in their training: a torch child that exports nothing starts in a third of the time."""

from __future__ import annotations

import sys

from workers.processes.child import Child
from workers.processes.children import Children

_PROGRAM = "from workers.processes import torch_child\ntorch_child.warm_up = lambda: None\ntorch_child.main()"


class ColdChildren(Children):
    """A slot's children. The torch child does not begin with an export."""

    def model(self) -> Child:
        if self._model is None or not self._model.alive():
            self.discard_model()
            argv = [sys.executable, "-c", _PROGRAM, "--threads", str(self.threads)]
            self._model = Child(argv, name="model", env=self._environment)
        return self._model
