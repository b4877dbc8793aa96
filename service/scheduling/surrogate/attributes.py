"""Names of what is said of a trial beside its values."""

from __future__ import annotations

DEVIATIONS = "surrogate:deviations"
"""Of each objective the standard deviation of its value; None if it is unknown, as of most single measurements.

A model then takes that for the noise of the value, and of others what it fits.
"""
