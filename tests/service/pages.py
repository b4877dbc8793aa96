"""A page as a test asks for it, with the checks that hold for every one."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "path", "circle", "rect", "wbr"}
LINKS = {"href", "src", "action", "hx-get", "hx-post", "hx-sse:connect", "data-api", "data-script", "data-echarts"}


class Checker(HTMLParser):
    """Fails on what does not close, on repeated ids, and on what the content security policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert name != "style", "inline styles are refused by the policy"
            assert not name.startswith("on"), "inline handlers are refused by the policy"
            if name == "id":
                assert value not in self.ids, f"two elements have the id {value}"
                self.ids.add(value)
            if name in LINKS:
                self.links.append(value)
        if tag == "script":
            assert dict(attributes)["src"].startswith("/static/")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag


def page(client, path, status=200, part=None, **params):
    """The text of a page, or of the part of it that htmx asks for, after the checks that hold for all of them."""
    headers = {} if part is None else {"HX-Request": "true", "HX-Target": f"div#{part}"}
    answer = client.get(path, params=params or None, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    checker = Checker()
    checker.feed(answer.text)
    assert not checker.open
    outside = [link for link in checker.links if link.startswith("http") and "//testserver" not in link]
    assert not outside or path == "/layers", "everything but citations is the service's own: it works offline"
    return answer.text
