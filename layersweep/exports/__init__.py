"""Sweeps in the formats of other tools."""
