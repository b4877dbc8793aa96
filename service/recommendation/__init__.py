"""Which trial to take, and all that speaks for it."""
