"""What executes a trial. Speaks to the service over HTTP only."""
