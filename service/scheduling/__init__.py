"""What a sweep tries next: one leader a sweep, samplers, points, and the writes that follow. Only here is Optuna
imported."""
