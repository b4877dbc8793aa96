"""A dataset on this machine: downloaded once, as splits and batches that a model reads."""
