"""Holds the GPU's memory, all but as many bytes as its argument says, until its input ends. Run by its path."""

from __future__ import annotations

import sys

import torch

if __name__ == "__main__":
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()
