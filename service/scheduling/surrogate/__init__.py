"""A sampler for few and expensive trials with one to four objectives: it models each and asks for what promises most.

It knows Optuna, NumPy and SciPy, and nothing of the service: see `sampler.SurrogateSampler`.
"""
