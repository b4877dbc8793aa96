"""What there is to sweep: datasets, layers, presets, workers."""
