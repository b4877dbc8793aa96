"""Files of several parts on their way to and from the service: what a trial left, and checkpoints."""
