"""Checkpoints as Hugging Face's `transformers` reads and writes them: configurations and weights of its architectures.

Numpy only: the service converts what a trial learnt, and what is uploaded.
"""
