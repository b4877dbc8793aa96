"""No part of a password is shown, whatever is wrong with the URL."""

from __future__ import annotations

import pytest

from service.database import urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://layersweep@db/layersweep", "postgresql://layersweep@db/layersweep"),
        ("postgresql://layersweep:geheim@db:5433/layersweep", "postgresql://layersweep:***@db:5433/layersweep"),
        ("postgresql://u:ge%40he%2Fim@db/x?sslmode=require", "postgresql://u:***@db/x?sslmode=require"),
        ("postgresql://db/x?user=u&password=geheim", "postgresql://db/x?password=hidden&user=u"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=%2Frun%2Fpostgresql"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert urls.shown(url) == shown
    assert urls.parse(url).get_backend_name() == "postgresql"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://layersweep:p@geheim/w0rd@127.0.0.1:5432/layersweep",
        "postgresql://layersweep:geheim@w0rd@db/layersweep",
        "postgresql://layer/sweep:geheim@db/layersweep",
        "postgresql://layersweep:geheim/layersweep",
        "postgresql://layersweep:w0rd@db:geheim/layersweep",
        "layersweep:geheim@db",
    ],
)
def test_of_a_url_that_is_read_in_no_sure_way_nothing_is_shown_and_it_is_refused(url: str) -> None:
    assert urls.shown(url) == "postgresql://..."
    with pytest.raises(ValueError, match="@ is %40") as refused:
        urls.parse(url)
    assert not any(part in str(refused.value) for part in ("geheim", "w0rd", "127.0.0.1"))


@pytest.mark.parametrize(("url", "said"), [("mysql://u:geheim@db/x", "mysql is not"), ("sqlite://", "needs a file")])
def test_other_databases_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        urls.parse(url)
    assert "geheim" not in str(refused.value)


def test_a_file_may_have_any_name() -> None:
    assert urls.parse("sqlite:////tmp/a@b@c.db").database == "/tmp/a@b@c.db"
