"""A sweep document to its space: the open parameters, which points are feasible, where to start."""
