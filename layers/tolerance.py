"""Numbers that are equal but for rounding."""

from __future__ import annotations

import math

NEAR = 1e-9
"""Numbers as near as this, relative to their size, are equal, and one as near to an integer is it: 0.29 * 100 is 29.

Decimal fractions have no exact value in binary: what a user calculates by hand must come out the same.
"""
NEAR_ZERO = 1e-15
"""What is left of a difference that would be 0: no parameter and no metric is as small."""


def nearest(value: int | float) -> int | float:
    """The integer that a number is but for rounding; any other number itself."""
    if isinstance(value, int):
        return value
    integer = round(value)
    return integer if abs(value - integer) <= NEAR * max(1.0, abs(value)) else value


def near(left: int | float, right: int | float) -> bool:
    """Whether two numbers are equal but for rounding. Integers are exact."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    return math.isclose(left, right, rel_tol=NEAR, abs_tol=NEAR_ZERO)
