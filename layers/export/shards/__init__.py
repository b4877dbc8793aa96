"""A model that devices share, as graphs: one schedule a rank, of segments and of the collectives between them."""
