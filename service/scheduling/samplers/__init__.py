"""Optuna samplers of our own, beside the surrogate: they change what Optuna's suggest."""
