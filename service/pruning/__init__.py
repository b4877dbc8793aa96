"""Which trainings are stopped before their end, and what that saves and may lose."""
