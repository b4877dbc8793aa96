"""What a device takes for a model that it has not run: latency, memory and build time, from trials that it measured."""
