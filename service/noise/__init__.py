"""What the noise of a sweep's measurements leaves undecided."""
