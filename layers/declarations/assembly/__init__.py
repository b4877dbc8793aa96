"""What models and probes consist of, and what is known without building them."""
