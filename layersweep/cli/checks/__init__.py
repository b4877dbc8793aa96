"""Commands that check: the points of a space before a sweep, and the limits of a trial after it."""
