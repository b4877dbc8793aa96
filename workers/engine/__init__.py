"""Engines, and all that is measured of them. Without torch; Python 3.10 is enough."""
