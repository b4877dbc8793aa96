"""What is looked for in a document beyond its single fields: metrics it cannot have, misfits, windows."""
