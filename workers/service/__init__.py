"""The worker's side of the HTTP contract: the client and the lease."""
