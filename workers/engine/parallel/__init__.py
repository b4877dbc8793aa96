"""An engine that several processes share, a device each: one leads, the others do what it does, in step."""
