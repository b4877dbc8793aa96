"""The architectures of `transformers`, one file a family: how each is configured, and what its tensors are called."""
