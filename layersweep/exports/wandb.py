"""A sweep as a group of runs of Weights & Biases: a run for each trial that has ended."""

from __future__ import annotations

from pathlib import Path

from layersweep.errors import InvalidUsageError
from layersweep.exports.runs import finished_runs, needed
from layersweep.sweep import Sweep

BAD_STATES = frozenset({"failed", "cancelled"})


def write_runs(
    sweep: Sweep,
    project: str,
    *,
    entity: str | None = None,
    offline: bool = False,
    folder: Path | None = None,
) -> int:
    """Write the trials that have ended as runs of a project, in a group named after the sweep; how many.

    A run has its trial's id: an export that is repeated writes the same runs again. `offline`: into `folder` (default:
    the working folder's `wandb`), for `wandb sync`. Raises MissingDependencyError without wandb, InvalidUsageError
    if W&B refuses.
    """
    wandb = needed("wandb", "wandb")
    written = 0
    try:
        for run in finished_runs(sweep):
            opened = wandb.init(
                project=project,
                entity=entity,
                id=run.trial["id"],
                name=run.name,
                group=f"{sweep.name} ({sweep.id})",
                job_type="trial",
                config={**run.parameters, **run.tags},
                mode="offline" if offline else "online",
                dir=folder,
                resume=None if offline else "allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
            opened.summary.update(run.metrics)
            opened.finish(exit_code=1 if run.trial["state"] in BAD_STATES else 0)
            written += 1
    except (wandb.Error, OSError) as problem:
        raise InvalidUsageError(f"W&B cannot write to {project}: {problem}") from problem
    return written
