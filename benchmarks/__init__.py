"""Measurements that the documentation quotes: each script says what it measures and prints JSON on its last line."""
