"""Trials that have ended and are queued again: cut off by a sweep's end, failed before an extension, or promoted."""
