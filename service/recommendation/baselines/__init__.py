"""Models that only count, and how the front does against the best of them."""
