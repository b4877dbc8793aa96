"""A worker's devices: which they are, who has them, and how attempts share their time and memory."""
