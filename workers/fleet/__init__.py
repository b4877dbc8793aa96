"""Workers on the machines of an engine that runs fleets: how many the queue needs, and where they are started."""
