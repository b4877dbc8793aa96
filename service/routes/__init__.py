"""One thin file a noun: HTTP in, the noun's own module called, HTTP out."""
