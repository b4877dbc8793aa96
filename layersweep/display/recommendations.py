"""A recommendation for people: what to take, by which rule, and what speaks for it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from layersweep.display import units
from layersweep.leaderboard import shown_metrics
from layersweep.records.recommendations import Confirmation, Recommendation


def render(found: Recommendation) -> RenderableType:
    """All of it but the configuration."""
    row = found["trial"]
    head = Text.assemble(("Take trial ", "bold"), (str(row["number"]), "bold green"))
    if not found["final"]:
        head.append(" so far", style="dim")
    evidence = found["evidence"]
    parts: list[RenderableType] = [head, _figures(found), Text(f"\n{found['rule']}", style="dim")]
    if found["smaller"]:
        parts.append(Text(f"\n{units.sentence(found['smaller']['says'])}", style="yellow"))
    if found["baseline"]:
        parts += [Text(f"\n{units.sentence(line)}", style="yellow") for line in found["baseline"]["says"]]
    if under_limits := found.get("under_limits"):
        parts.append(Text(f"\n{units.sentence(under_limits['says'])}", style="yellow"))
    parts += _section("Neighbours on the front", [each["says"] for each in found["neighbours"]])
    limits: list[str] = []
    for each in evidence["constraints"]:
        of_limit = f" ({units.share(each['slack_share'])} of the limit)" if each["slack_share"] is not None else ""
        left = units.metric(each["metric"] if each["metric"] and each["limit"] is not None else "", each["slack"])
        limits.append(f"{each['constraint']}: {left} left{of_limit}")
        limits += [f"    {each['tighter']['says']}", f"    {each['looser']['says']}"]
    parts += _section("Constraints", limits)
    parts += _section("How sure", found["certainty"]["says"])
    if found["confirmation"]:
        parts.append(render_confirmation(found["confirmation"]))
    parts += _section("Size", evidence["complexity"]["says"])
    parts += _section("Data", [each["says"] for each in evidence["data"]["implications"]])
    parts += _section("Literature", evidence["literature"]["says"])
    parts += _section("Targets", evidence["compatibility"]["says"])
    return Group(*parts)


def render_confirmation(found: Confirmation) -> RenderableType:
    """What a confirmation found so far."""
    reason = f" ({found['reason']})" if found["reason"] else ""
    seeds = ", ".join(map(str, found["seeds"]))
    parts: list[RenderableType] = [Text(f"Confirmation {found['id']}: {found['state']}{reason}; seeds {seeds}")]
    for each in found["candidates"]:
        title = f"Trial {each['trial']['number']}" + (" (recommended)" if each["recommended"] else "")
        parts += _section(title, each["says"])
    parts += _section("All together", found["says"])
    return Group(*parts)


def _figures(found: Recommendation) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    metrics = found["trial"]["metrics"]
    objectives = (each["metric"] for each in found["objectives"])
    for name in shown_metrics([found["trial"]], objectives, found.get("summary_metrics", ())):
        if name in metrics:
            table.add_row(name, units.figure(name, metrics))
    return table


def _section(title: str, lines: Iterable[str]) -> list[RenderableType]:
    lines = list(lines)
    return [Text(f"\n{title}", style="bold"), *(Text(f"  {line}") for line in lines)] if lines else []
