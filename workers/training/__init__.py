"""The torch side of an attempt: the training loop and float32 references."""
