"""What can be swept, from where, and on what: layers, presets, targets."""
