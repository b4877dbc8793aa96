"""How much of a space is feasible, counted in processes of their own."""
