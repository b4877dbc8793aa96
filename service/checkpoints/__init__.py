"""Uploaded checkpoints: read once into our names and shapes, kept as they are, named by their content."""
