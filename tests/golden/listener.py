"""Stands between a worker and its engine child, passes every line on, and writes it down.

`python listener.py TRANSCRIPT --answers-fd N`, in place of `python -m workers.engine --answers-fd N`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any


def main(transcript: str, answers_fd: int) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "workers.engine", "--answers-fd", str(writing)]
    with Path(transcript).open("wb", buffering=0) as kept, os.fdopen(answers_fd, "wb", buffering=0) as answers:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[writing])
        os.close(writing)
        assert child.stdin is not None
        passing = threading.Thread(target=_pass_on, args=(os.fdopen(reading, "rb"), answers, kept, b"< "))
        passing.start()
        _pass_on(sys.stdin.buffer, child.stdin, kept, b"> ")
        child.stdin.close()
        passing.join()
        sys.exit(child.wait())


def _pass_on(source: IO[Any], sink: IO[Any], kept: IO[Any], mark: bytes) -> None:
    for line in source:
        kept.write(mark + line)
        sink.write(line)
        sink.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
