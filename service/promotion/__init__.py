"""Pruned trials that are trained to their ends after all."""
