"""A report as HTML that stands alone (one file, no script, nothing fetched), and as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml
from jinja2 import Environment
from markupsafe import Markup

from layers.declarations.inference.shapes import shapes_of
from layers.metrics import Goal
from layersweep.display.leaderboards import short_names
from layersweep.documents import of_configuration
from layersweep.json_values import JsonObject
from service.common.formatting import label
from service.common.states import GOING_SWEEPS
from service.common.templates import DOCUMENT_HEADERS, context, html_environment, plain_environment
from service.confirmation.schemas import ConfirmedTrial, RecommendationDetail
from service.database.dataset_columns import StoredSplit
from service.datasets.schemas import Implication
from service.report import markdown as escaping
from service.report import pictures
from service.report.schemas import Report
from service.results.shapes import ShapeTable, served_table, shape_picture, shape_table, size_in_words
from service.sweeps.schemas import SweepDetail

_ENVIRONMENT_SHOWN = (
    "device",
    "cpu_model",
    "gpu_name",
    "driver_version",
    "runtime_version",
    "intra_op_threads",
    "kernel",
)


@dataclass(frozen=True, slots=True)
class ReportView:
    """What the templates of a report show."""

    report: Report
    sweep: SweepDetail
    found: RecommendationDetail | None
    confirmed: ConfirmedTrial | None
    """The recommended trial among the confirmation's candidates."""
    experimentation: str
    """Whether it was confirmed."""
    implications: Sequence[Implication]
    """What the data mean for the recommended trial, or for any model if there is none."""
    bars: list[pictures.Bar]
    splits: list[str]
    setting: Mapping[str, str]
    """What was asked, of what data, and where and at which shape it was measured."""
    goals: Mapping[str, Goal]
    columns: list[str]
    """Metrics of the front, and of the recommended trial."""
    shapes: ShapeTable | None
    """The recommended trial's figures at each shape."""
    served: ShapeTable | None
    """Its prompts and steps, if it generates."""
    parameters: list[str]
    """Those in which the front differs."""
    short_names: Mapping[str, str]
    """Parameter -> what heads its column."""
    environment: Mapping[str, object]
    configuration: str
    document: str


def html(report: Report) -> str:
    """The whole document."""
    template = _html().get_template("report.html")
    return template.render(
        context(_view(report)),
        style=Markup(_style()),
        trade_off=pictures.trade_off(report),
        gap=pictures.gap_by_size(report),
        whiskers=pictures.whiskers(report),
        shape_picture=shape_picture(_shapes(report)),
    )


def markdown(report: Report) -> str:
    """The same story, in tables and lists."""
    return _plain().get_template("report.md").render(context(_view(report)))


def headers() -> Mapping[str, str]:
    """Under which the HTML is sent: nothing may be loaded or run, and only its own style applies."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return {"Content-Security-Policy": policy, **DOCUMENT_HEADERS}


def _view(report: Report) -> ReportView:
    found = report.recommendation
    confirmed = _confirmed(report, found)
    known = {name for row in report.front for name in row.metrics}
    names = dict.fromkeys(name for row in report.front for name in row.parameters)
    parameters = [name for name in names if len({str(row.parameters.get(name)) for row in report.front}) > 1]
    environment = report.reproduction.environment
    return ReportView(
        report=report,
        sweep=report.sweep,
        found=found,
        confirmed=confirmed,
        experimentation=_experimentation(report, confirmed),
        implications=_implications(report),
        bars=pictures.baselines(report),
        splits=[] if report.dataset is None else [_split(*each) for each in report.dataset.parts.items()],
        setting=_setting(report),
        goals={objective.metric: objective.goal for objective in report.sweep.objectives},
        columns=[name for name in report.summary_metrics if name in known],
        shapes=_shapes(report),
        served=None if found is None else served_table(found.configuration, found.trial.metrics),
        parameters=parameters,
        short_names=short_names(parameters),
        environment={name: environment[name] for name in _ENVIRONMENT_SHOWN if environment.get(name) is not None},
        configuration="" if found is None else _yaml(of_configuration(dict(found.configuration), report.sweep.dataset)),
        document=_yaml(dict(report.reproduction.document)),
    )


def _setting(report: Report) -> dict[str, str]:
    """What the figures hold for, in a line each."""
    sweep, dataset = report.sweep, report.dataset
    data = "" if dataset is None else f"{dataset.name}: {', '.join(_split(*each) for each in dataset.parts.items())}"
    texts = {
        "limits": ", ".join(sweep.constraints) or "none",
        "objectives": ", ".join(f"{each.goal} {label(each.metric)}" for each in sweep.objectives),
        "measured at": _measured_at(report),
        "data": data,
        "device": sweep.target or "",
    }
    return {name: text for name, text in texts.items() if text}


def _measured_at(report: Report) -> str:
    """`1 × 64 (batch × tokens)`, or each shape with its name; those of the recommended trial."""
    found = report.recommendation
    inference = report.reproduction.document.get("inference", {}) if found is None else found.configuration["inference"]
    shapes = [] if found is None else shapes_of(found.configuration.get("shapes", []))
    if shapes:
        return ", ".join(f"{shape.name} {size_in_words(shape.values)}" for shape in shapes) + " (batch × tokens)"
    values = {name: value for name, value in inference.items() if isinstance(value, int)}
    return f"{size_in_words(values)} (batch × tokens)" if values.keys() >= {"batch_size", "sequence_length"} else ""


def _implications(report: Report) -> Sequence[Implication]:
    if report.recommendation is not None:
        return report.recommendation.evidence.data.implications
    return [] if report.unrecommended is None else report.unrecommended.implications


def _shapes(report: Report) -> ShapeTable | None:
    found = report.recommendation
    return None if found is None else shape_table(found.configuration, found.trial.metrics)


def _split(name: str, split: StoredSplit) -> str:
    """How much a split of the data has: tokens if it is a text, else examples."""
    if tokens := split.get("tokens"):
        return f"{name} {tokens:,} tokens"
    return f"{name} {split.get('examples') or 0:,} examples"


def _confirmed(report: Report, found: RecommendationDetail | None) -> ConfirmedTrial | None:
    if report.confirmation is None or found is None:
        return None
    return next((each for each in report.confirmation.candidates if each.trial.trial == found.trial.trial), None)


def _experimentation(report: Report, confirmed: ConfirmedTrial | None) -> str:
    """What the heading says of the recommended trial's confirmation; nothing of a probe."""
    if report.dataset is None:
        return ""
    if confirmed is not None and confirmed.test is not None:
        return ": confirmed on a split that no sweep has seen"
    if report.confirmation is None or report.recommendation is None:
        return ": not confirmed"
    if confirmed is not None:
        return ": not confirmed yet"
    return f": other trials {'are being' if report.confirmation.state in GOING_SWEEPS else 'were'} confirmed"


def _yaml(document: JsonObject) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


@cache
def _style() -> str:
    return files("service").joinpath("web/report.css").read_text()


@cache
def _html() -> Environment:
    return html_environment()


@cache
def _plain() -> Environment:
    """Everything that is put in is escaped for Markdown."""
    made = plain_environment(escaping.shown, code=escaping.code, block=escaping.block)
    # A text file ends with a newline.
    made.keep_trailing_newline = True
    return made
