"""Which databases a test runs on, where not on both."""

from __future__ import annotations

import pytest

POSTGRESQL_IN_SLOW_TESTS = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
"""`make test` runs it on SQLite, `make test-slow` on PostgreSQL: for what samplers compute for long and the database
only keeps."""
