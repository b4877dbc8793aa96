"""worker.sbatch without a Slurm: what it does when its job is told to stop. try.sh beside it tries it on a real one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "worker.sbatch"

PROGRAMS = {
    "layersweep": """
        trap 'echo drained >> "$LOG"; exit 0' TERM
        echo "${LAYERSWEEP_TOKEN:-no variable}, ${LAYERSWEEP_TOKEN_FILE:-no file}" >> "$LOG"
        echo "$$"
        while :; do sleep 0.05; done
        """,
    # Fails as often as a file says; then it says the job's state.
    "squeue": """
        read -r failures < "$FAILURES"
        if [ "$failures" -gt 0 ]; then echo $((failures - 1)) > "$FAILURES"; exit 1; fi
        echo "$STATE"
        """,
    "scontrol": 'echo "$*" >> "$LOG"; kill -KILL "$PPID"',
    # Seconds between two questions are of no interest here.
    "sleep": 'case "$1" in 0*) exec /bin/sleep "$1" ;; esac',
}


def told_to_stop(folder: Path, state: str, *, failures: int) -> list[str]:
    """What happens to a worker's job that gets SIGTERM while Slurm says that its state is this."""
    (folder / "bin").mkdir()
    for name, text in PROGRAMS.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}")
        program.chmod(0o755)
    (folder / "failures").write_text(f"{failures}\n")
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "LOG": str(folder / "log"),
        "FAILURES": str(folder / "failures"),
        "STATE": state,
        "SLURM_JOB_ID": "7",
        "LAYERSWEEP_TOKEN_FILE": "/secret/token",
    }
    started = subprocess.Popen(
        ["bash", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with started as job:
        assert job.stdout is not None
        try:
            worker = int(job.stdout.readline())
            job.send_signal(signal.SIGTERM)
            if state != "RUNNING":
                # `scancel` alone: the worker gets its SIGTERM from Slurm, and no second one from the script.
                os.kill(worker, signal.SIGTERM)
            job.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
    return (folder / "log").read_text().splitlines()


@pytest.mark.parametrize("failures", [0, 2, 99], ids=["it answers", "it answers late", "it never answers"])
def test_a_worker_drains_before_its_limit_and_its_job_queues_again(tmp_path: Path, failures: int) -> None:
    # The token's file is read by the worker itself, which reads it again where the token was replaced.
    assert told_to_stop(tmp_path, "RUNNING", failures=failures) == [
        "no variable, /secret/token",
        "drained",
        "requeue 7",
    ]


def test_a_cancelled_job_stays_so_and_its_worker_is_told_once(tmp_path: Path) -> None:
    assert told_to_stop(tmp_path, "COMPLETING", failures=1) == ["no variable, /secret/token", "drained"]
