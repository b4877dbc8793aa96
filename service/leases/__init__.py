"""The right to execute an attempt: the only place where leases are written. Trials, attempts and workers."""
