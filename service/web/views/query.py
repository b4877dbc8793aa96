"""The state of a sweep's page, all of it in its address: what one sees, a link shows to another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from service.errors import UnprocessableError
from service.results.leaderboards import Condition, Filters
from service.results.selection import RECOMMENDED, Feasible

PICTURES = ("importance", "effects", "hypervolume", "parallel")
MAX_COMPARED = 10

ANY_PERCENT = 100
"""Where the slider of a limit stands when everything on the front is within it."""
MAX_SLIDERS = 40

_WISHES = ("prefer", "within", "weight")
_FLAGS = ("feasible", "on_front")
_LISTS = ("state", "where", "column", "trial", "hide", *_WISHES)
_WORDS = ("x", "y", "picture", "metric", "over", "page_token")


@dataclass(frozen=True, slots=True)
class SweepQuery:
    """What is sorted, kept, shown and chosen on a sweep's page."""

    sort: str = RECOMMENDED
    state: tuple[str, ...] = ()
    feasible: Feasible | None = None
    on_front: bool | None = None
    where: tuple[str, ...] = ()
    column: tuple[str, ...] = ()
    """The columns of the leaderboard; none: the usual ones."""
    differing: bool = False
    """Only columns in which the rows differ."""
    trial: tuple[str, ...] = ()
    """Numbers of the trials that are chosen for comparison."""
    x: str | None = None
    y: str | None = None
    picture: str | None = None
    metric: str | None = None
    """Of the effects."""
    over: str | None = None
    """Across the hypervolume: trials or time."""
    hide: tuple[str, ...] = ()
    """Axes of the parallel coordinates that are switched off."""
    prefer: tuple[str, ...] = ()
    """What the recommendation is wished to be: as of the API's."""
    within: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    """Sliders of limits that a form sends, in per cent of the front's range: `within` once the front is known."""
    page_token: str | None = None

    @classmethod
    def of(cls, given: QueryParams) -> SweepQuery:
        """What a request asks for; forms send empty fields for what is not chosen."""
        lists = {name: tuple(dict.fromkeys(each for each in given.getlist(name) if each)) for name in _LISTS}
        name, operator, value = (given.get(f"where_{part}", "").strip() for part in ("name", "operator", "value"))
        if name and value:
            lists["where"] = tuple(dict.fromkeys([*lists["where"], f"{name}{operator or '='}{value}"]))
        if unknown := [each for each in lists["trial"] if not (each.isascii() and each.isdigit() and len(each) < 10)]:
            raise UnprocessableError(f"trial={unknown[0][:40]!r} is not the number of a trial")
        picture = given.get("picture") or None
        if picture is not None and picture not in PICTURES:
            raise UnprocessableError(f"picture={picture[:40]!r}: choose from {', '.join(PICTURES)}")
        over = given.get("over") or None
        if over not in (None, "trials", "time"):
            raise UnprocessableError(f"over={over[:40]!r}: choose from trials, time")
        limits = tuple((name, int(at)) for name, at in _sliders(given, "limit.") if at < ANY_PERCENT)
        # A preferred metric decides before any weight: the API takes one of the two.
        weights = [f"{name}:{at:g}" for name, at in _sliders(given, "weight.") if at != 1 and not lists["prefer"]]
        lists["weight"] = tuple(dict.fromkeys([*lists["weight"], *weights]))
        return cls(
            limits=limits,
            sort=given.get("sort") or RECOMMENDED,
            feasible=_feasible(given.get("feasible", "")),
            on_front=_flag("on_front", given.get("on_front", "")),
            differing=_flag("differing", given.get("differing", "")) is True,
            x=given.get("x") or None,
            y=given.get("y") or None,
            picture=picture,
            metric=given.get("metric") or None,
            over=over,
            page_token=given.get("page_token") or None,
            **lists,
        )

    @property
    def filters(self) -> Filters:
        """The leaderboard's filters. Raises UnprocessableError for what is none."""
        return Filters(self.state, self.feasible, self.on_front, tuple(map(Condition.parse, self.where)))

    @property
    def is_filtered(self) -> bool:
        return bool(self.state or self.where) or self.feasible is not None or self.on_front is not None

    def pairs(self, *without: str) -> list[tuple[str, str]]:
        """What differs from the plain page, as query parameters, less those named."""
        pairs = [("sort", self.sort)] if self.sort != RECOMMENDED else []
        pairs += [(name, each) for name in _LISTS for each in getattr(self, name)]
        pairs += [(name, str(flag).lower()) for name in _FLAGS if (flag := getattr(self, name)) is not None]
        pairs += [("differing", "true")] if self.differing else []
        pairs += [(name, word) for name in _WORDS if (word := getattr(self, name))]
        return [(name, value) for name, value in pairs if name not in without]

    def url(self, path: str = "", **changes: Any) -> str:
        """The address with these changes; a changed sort or filter begins at the first page."""
        changed = replace(self, **({"page_token": None} | changes))
        query = urlencode(changed.pairs())
        return f"{path}?{query}" if query else path or "?"

    @property
    def wishes(self) -> list[tuple[str, str]]:
        """What is wished of the recommendation, as parameters of a query."""
        return [pair for pair in self.pairs() if pair[0] in _WISHES]

    def api(self, path: str, **given: str) -> str:
        """An address of the API that chooses as this page does."""
        query = urlencode([*given.items(), *self.wishes])
        return f"{path}?{query}" if query else path

    def export(self) -> str:
        """The same leaderboard as a query of the API."""
        return urlencode([pair for pair in self.pairs() if pair[0] in ("sort", "state", "where", *_FLAGS)])


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """A column of the leaderboard, with the link that its head holds."""

    name: str
    label: str
    """Its name in few characters."""
    hint: str
    """Its full name, and what it is."""
    kind: Literal["metric", "parameter"]
    objective: bool
    sort: str
    """What a click on the head sorts by."""
    direction: Literal["ascending", "descending"] | None
    """How the table is sorted by it now."""


def _sliders(given: QueryParams, prefix: str) -> list[tuple[str, float]]:
    """What sliders say whose names begin so: name and position. Raises UnprocessableError for what is no number."""
    found: list[tuple[str, float]] = []
    for name in [name for name in given if name.startswith(prefix)][:MAX_SLIDERS]:
        try:
            at = float(given[name])
        except ValueError:
            at = math.nan
        if not 0 <= at <= ANY_PERCENT:
            raise UnprocessableError(f"{name[:40]}={given[name][:40]!r}: give a number from 0 to {ANY_PERCENT}")
        found.append((name.removeprefix(prefix), at))
    return found


def _feasible(text: str) -> Feasible | None:
    return "undecided" if text == "undecided" else _flag("feasible", text)


def _flag(name: str, text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise UnprocessableError(f"{name}={text!r}: give true or false")
    return None if not text else text == "true"
