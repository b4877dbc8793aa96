"""Sweeps: documents validated, targets resolved, made, extended, ended."""
