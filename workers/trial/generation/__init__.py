"""A trial in the mode `generate`: engines of its prompt and its steps, seen to be the model, and measured."""
