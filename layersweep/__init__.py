"""Layersweep's client: submit sweeps over layer parameters, wait for them, read their leaderboards."""

__version__ = "0.1.0"
