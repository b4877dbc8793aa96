"""The files of one attempt: what is written where, below its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """Paths below `folder`, which is of one attempt alone and removed after it."""

    folder: Path

    def of_shape(self, name: str) -> AttemptFiles:
        """Those of one of several shapes, in a folder of its own, which is made."""
        folder = self.folder / f"at_{name}"
        folder.mkdir(exist_ok=True)
        return AttemptFiles(folder)

    @property
    def measured_inputs(self) -> Path:
        """The sets of inputs that a measurement rotates over."""
        return self.folder / "measure.npz"

    @property
    def parity_inputs(self) -> Path:
        """The inputs that the engine and the model are compared on."""
        return self.folder / "parity.npz"

    @property
    def engine_outputs(self) -> Path:
        """The engine's logits for the inputs of the comparison."""
        return self.folder / "engine.npz"

    @property
    def reference_outputs(self) -> Path:
        """The model's logits for the same inputs."""
        return self.folder / "reference.npz"

    @property
    def prompts(self) -> Path:
        """The sets of prompts that a measurement rotates over."""
        return self.folder / "prompts.npz"

    @property
    def text(self) -> Path:
        """A text that is read step by step, to be compared with the model."""
        return self.folder / "text.npz"

    @property
    def calibration(self) -> Path:
        """Examples of the training split that the ranges of 8-bit products are found on."""
        return self.folder / "calibration.npz"

    @property
    def loss_onnx(self) -> Path:
        """The graph that turns logits and targets into a loss."""
        return self.folder / "loss.onnx"

    @property
    def weights(self) -> Path:
        """What was learnt, for the artifacts."""
        return self.folder / "weights.safetensors"

    @property
    def stopped_training(self) -> Path:
        """The state of the training, if it is stopped before its end."""
        return self.folder / "stopped-training.pt"

    @property
    def earlier_training(self) -> Path:
        """The state from which it goes on, as the service sends it."""
        return self.folder / "earlier-training.pt"

    @property
    def test_split(self) -> Path:
        """The test split as the service sends it."""
        return self.folder / "test-split.npz"

    @property
    def artifacts(self) -> Path:
        """The folder of what is written for the artifacts alone."""
        return self.folder / "artifacts"

    def batches(self, split: str) -> Path:
        """The batches of a split that a loss is computed on."""
        return self.folder / f"{split}.npz"

    def onnx(self, name: str) -> Path:
        """The graph of the model: `first` as it was made, `final` as it is reported."""
        return self.folder / f"{name}.onnx"

    def shards(self, name: str) -> Path:
        """The same of a model that devices share: what each of them does, with its graphs in a folder beside it."""
        return self.folder / f"{name}.shards"

    def engine(self, name: str) -> Path:
        """The engine of a graph."""
        return self.folder / f"{name}.engine"
