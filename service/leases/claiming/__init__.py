"""Which trial a worker is given: priorities, quotas of projects, and fair shares between sweeps."""
