"""What survives kills, hostile requests and many writers."""
