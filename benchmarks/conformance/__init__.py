"""Whether results are right: every combination of layers, the coverage of intervals."""
