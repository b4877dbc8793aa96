"""Texts that are generated: the caches between steps, the steps one after another, and how long each takes."""
