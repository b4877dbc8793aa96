"""Further trainings of a sweep's trials with seeds of their own: which trial gets one, and what becomes of its loss."""
