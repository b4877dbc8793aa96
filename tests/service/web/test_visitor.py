from fastapi.testclient import TestClient

from service.auth import tokens
from service.http.dependencies import Services


def test_each_page_says_who_is_logged_in_and_leads_out(client: TestClient, services: Services) -> None:
    assert "/logout" not in client.get("/").text, "nobody has to log in while there is no token"
    new = tokens.NewToken("ada", ["submit"], "default")
    _, secret = services.database.write(lambda session: tokens.create(session, new, made_by="test"))
    services.access.forget()
    client.post("/login", data={"token": secret})
    for path in ("/", "/datasets", "/new", "/nothing"):
        shown = client.get(path).text
        assert all(f"<dd>{what}</dd>" in shown for what in ("ada", "default", "read, submit")), path
        assert '<form method="post" action="/logout">' in shown
    assert "<dd>ada</dd>" not in client.get("/login").text, "it needs no token, and asks for none"
