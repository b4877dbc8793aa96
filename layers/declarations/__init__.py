"""What may be set in each layer, and what follows from it. No torch in this folder."""
