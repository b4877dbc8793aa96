"""All workers together: what waits for which of them."""
