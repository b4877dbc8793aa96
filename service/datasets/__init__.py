"""Registered data: read from files, cut into splits that never change, profiled."""
