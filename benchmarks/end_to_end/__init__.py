"""From a sweep's document to determined parameters."""
