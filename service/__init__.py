"""The HTTP service: sweeps in, leaderboards out. Knows HTTP, the database and Optuna; never torch or TensorRT."""
