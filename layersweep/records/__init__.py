"""The shapes of what the service answers, as typed dictionaries."""
