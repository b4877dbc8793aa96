"""Expressions of sweep documents: parsed and bounded, never evaluated by Python."""
