"""The table of uploaded checkpoints."""

from __future__ import annotations

from sqlalchemy import BigInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from layers.parameter import Scalar
from layersweep.json_values import JsonObject
from service.database.base import Base, Document


class Checkpoint(Base):
    """A checkpoint that sweeps can begin with. Its files lie under the data folder, named by `sha256`."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("project", "name"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str] = mapped_column(String(64), default="default")
    name: Mapped[str] = mapped_column(String(128))
    architecture: Mapped[str] = mapped_column(String(64))
    task: Mapped[str] = mapped_column(String(32))
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file of weights by our names, which holds the model's configuration too: part of the reuse key."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    parameter_count: Mapped[int] = mapped_column(BigInteger)
    config: Mapped[JsonObject] = mapped_column(Document)
    """config.json as it was uploaded."""
    model: Mapped[dict[str, Scalar]] = mapped_column(Document)
    """The completed model that it describes, by flat paths."""
    has_tokenizer: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float]
