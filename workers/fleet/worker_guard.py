"""Runs a worker for a process that may be killed at any moment: `python -m workers.fleet.worker_guard COMMAND...`.

Engines that run fleets end what they host by SIGKILL, and the children of it too. The worker is a grandchild: whatever
ends its parent, the kernel sends it SIGTERM, it drains, and its trials go back uncharged (Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the command, pass SIGTERM on to it, and end with its status."""
    host = os.getppid()
    _drain_with_parent()
    worker: subprocess.Popen[bytes] | None = None
    is_ending = False

    def drain(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        # A second SIGTERM would end the worker at once, before it has given its trials back.
        if worker is not None and not is_ending:
            worker.send_signal(signal.SIGTERM)
        is_ending = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, drain)
    if is_ending or os.getppid() != host:
        # Whoever hosts us has ended before the kernel knew what to do then.
        sys.exit(0)
    worker = subprocess.Popen(sys.argv[1:], preexec_fn=_drain_with_parent)
    if is_ending:
        worker.send_signal(signal.SIGTERM)
    sys.exit(worker.wait())


def _drain_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    main()
