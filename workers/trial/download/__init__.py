"""What a trial leaves to be downloaded says of itself, and the program that runs it."""
