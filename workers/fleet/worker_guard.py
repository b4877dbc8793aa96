"""Runs a worker for a process that may be killed at any moment: `python -m workers.fleet.worker_guard COMMAND...`.

Engines that run fleets end what they host by SIGKILL, and the children of it too. The worker is a grandchild: whatever
ends its parent, the kernel sends it SIGTERM, it drains, and its trials go back uncharged (Linux). It gets that signal
once: a second one would end it before it has given its trials back. So this process passes nothing on, it ends; and it
has one thread, because the kernel sends the signal again for each thread of a parent that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the command and end with its status; SIGTERM ends this process, and so drains the worker."""
    _end_with(os.getppid())
    guard = os.getpid()
    # The worker keeps the descriptors by which the host sees that it has ended.
    worker = subprocess.Popen(sys.argv[1:], preexec_fn=lambda: _end_with(guard), close_fds=False)
    sys.exit(worker.wait())


def _end_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent ends, and end now if it has ended already."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
