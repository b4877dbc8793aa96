"""The child processes of a worker, and their folders."""
