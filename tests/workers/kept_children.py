"""Children whose torch child goes on to the next test: to start one takes four seconds of a processor."""

from __future__ import annotations

from workers.processes.children import Children


class KeptChildren(Children):
    """A slot's children. When the slot ends, all but the torch child end."""

    def kill(self) -> None:
        model, self._model = self._model, None
        super().kill()
        self._model = model

    def end(self) -> None:
        """End the torch child as well."""
        super().kill()
