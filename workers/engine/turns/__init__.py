"""Whose turn it is on a device."""
