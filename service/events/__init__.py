"""What happened in a sweep, in order, and who is told of it outside: webhooks."""
