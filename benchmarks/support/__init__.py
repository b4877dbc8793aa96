"""What the benchmarks share: processes, figures, generated sweeps."""
