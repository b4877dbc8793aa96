"""How results look in a terminal, and in a pipe."""
