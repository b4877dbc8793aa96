"""JUnit XML of a judgement: a test case for each limit, as CI systems show them."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from layersweep.display.judgements import says
from layersweep.display.printable import printable
from layersweep.records.assertions import Judgement


def of_judgement(name: str, judgement: Judgement, *, seconds: float, strict: bool) -> bytes:
    """A limit that is broken is a failure; one that cannot be judged is skipped, or a failure if `strict`."""
    suite = ElementTree.Element("testsuite", {"name": "layersweep", "time": f"{seconds:.1f}"})
    properties = ElementTree.SubElement(suite, "properties")
    facts = {"target": judgement["measured"]["target"], "builds": str(judgement["builds"]), "sweep": judgement["id"]}
    for fact, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": fact, "value": printable(value)})
    for limit in judgement["limits"]:
        case = _case(suite, name, limit["limit"])
        if limit["verdict"] == "kept":
            ElementTree.SubElement(case, "system-out").text = printable(says(limit, judgement["measured"]))
        else:
            kind = "failure" if limit["verdict"] == "broken" or strict else "skipped"
            ElementTree.SubElement(case, kind, {"message": printable(says(limit, judgement["measured"]))})
    return _document(suite)


def of_error(name: str, limits: Sequence[str], error: Exception) -> bytes:
    """A gate that came to no judgement: every limit is an error."""
    suite = ElementTree.Element("testsuite", {"name": "layersweep"})
    for limit in limits:
        ElementTree.SubElement(_case(suite, name, limit), "error", {"message": printable(str(error))})
    return _document(suite)


def _case(suite: ElementTree.Element, name: str, limit: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": printable(name), "name": printable(limit)})


def _document(suite: ElementTree.Element) -> bytes:
    cases = suite.findall("testcase")
    for kind, counted in {"tests": "", "failures": "/failure", "errors": "/error", "skipped": "/skipped"}.items():
        suite.set(kind, str(len(suite.findall(f"testcase{counted}") if counted else cases)))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
