"""What pages and reports write: metrics in words, times and changes; numbers and units as in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from layers.metrics import is_metric, split_name
from layers.metrics import metric as declaration_of
from layersweep.display.units import (
    ago,
    at_once,
    bound,
    bytes_,
    count,
    duration,
    figure,
    metric,
    number,
    plural,
    sentence,
    share,
    three_digits,
    value,
)

__all__ = [
    "ago",
    "at_once",
    "bound",
    "bytes_",
    "change",
    "count",
    "duration",
    "ending",
    "figure",
    "label",
    "meaning",
    "metric",
    "number",
    "plural",
    "progress_rate",
    "sentence",
    "share",
    "spared_builds",
    "starts_from",
    "timestamp",
    "value",
    "when",
]

LABELS = {
    "parameter_count": "parameters",
    "flops": "FLOPs",
    "latency_ms_p50": "latency p50",
    "latency_ms_p90": "latency p90",
    "latency_ms_p99": "latency p99",
    "latency_ms_mean": "latency mean",
    "latency_cv": "latency CV",
    "latency_ms_enqueue_p50": "enqueue p50",
    "latency_ms_enqueue_p99": "enqueue p99",
    "throughput_per_s": "throughput",
    "device_ms_per_token": "device time a token",
    "prefill_ms_p50": "prefill p50",
    "prefill_ms_p90": "prefill p90",
    "prefill_ms_p99": "prefill p99",
    "decode_ms_per_token_p50": "decode p50",
    "decode_ms_per_token_p90": "decode p90",
    "decode_ms_per_token_p99": "decode p99",
    "time_to_first_token_ms": "time to first token",
    "tokens_per_s": "tokens a second",
    "kv_cache_bytes": "KV cache",
    "memory_bytes": "memory",
    "total_memory_bytes": "memory of all devices",
    "device_memory_bytes": "device memory",
    "engine_bytes": "engine size",
    "weights_bytes": "weights",
    "activation_bytes": "activations",
    "io_bytes": "inputs and outputs",
    "bits_per_byte": "bits per byte",
    "validation_loss_stderr": "standard error of the loss",
    "build_seconds": "build time",
    "train_seconds": "training time",
    "device_seconds": "device time",
    "latency_ms": "latency",
    "number": "trial number",
    "tokens_of_shape": "tokens of one inference (batch × length)",
}


def label(name: str) -> str:
    """A metric's name in words: latency p50 at chat."""
    base, shape = split_name(name)
    words = LABELS.get(base, base.replace("_", " "))
    return words if shape is None else f"{words} at {shape}"


def progress_rate(per_second: float) -> str:
    """How often something happens: 3.2 a minute."""
    for size, name in ((1.0, "second"), (60.0, "minute"), (3600.0, "hour"), (86_400.0, "day")):
        if per_second * size >= 1:
            return f"{three_digits(per_second * size)} a {name}"
    return f"one in {duration(1 / per_second)}"


def change(given: float, reference: float) -> str:
    """How much more or less than a reference, in per cent; of a negative reference or value the difference itself, as a
    share of it says nothing."""
    if min(given, reference) < 0:
        difference = number(given - reference)
        return difference if given < reference else f"+{difference}"
    share_of = (given - reference) / abs(reference)
    digits = 0 if abs(share_of) >= 0.1 else 1 if abs(share_of) >= 0.001 else 2
    return f"{100 * share_of:+.{digits}f}%" if abs(share_of) < 100 else f"×{three_digits(given / reference)}"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the second: what a `<time>` element holds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when(seconds: float) -> str:
    """A time for reading."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M UTC")


def starts_from(trials: int, sweeps: int) -> str:
    """What a sweep with `search.transfer` starts from, in words."""
    if not trials:
        return "found no earlier trials to start from"
    return f"starts from {plural(trials, 'trial')} of {plural(sweeps, 'earlier sweep')}"


def pruned(pruned: int, judged: int, saved_share: float | None, spared: int, spared_on_front: int) -> str:
    """What pruning has saved, and what trials that went on all the same say of what it loses, in words."""
    if not judged or saved_share is None:
        return "no training has come to a rung yet"
    saved = f"stopped {pruned} of {plural(judged, 'training')}, which saved {saved_share:.0%} of their steps"
    if not spared:
        return saved
    shown = f"{plural(spared, 'trial')} more went on to show what that loses: {spared_on_front} came to the front"
    return f"{saved}; {shown}"


def spared_builds(trials: int, broken: int) -> str:
    """How many trials were not built before their training, and how often that was wrong, in words."""
    if not trials:
        return "no build before a training was spared yet"
    came = f"{broken} of them broke a limit after all" if broken else "none of them broke a limit"
    return f"spared {plural(trials, 'build')} before a training, by what the device is predicted to take: {came}"


def meaning(name: str) -> str:
    """What a metric is, in a sentence."""
    return declaration_of(name).meaning if is_metric(name) else ""


_ENDINGS = {
    "budget_exhausted": "every trial of the budget has ended",
    "space_exhausted": "every point of the space was tried",
    "wall_seconds": "its time was over",
    "device_seconds": "its device time was used up",
}


def ending(reason: str, end_code: str | None) -> str:
    """Why a sweep is in its state: the end of its budget in words, and what it found nothing of."""
    words = _ENDINGS.get(reason, reason)
    return f"no trial is complete and feasible; {words}" if end_code == "none_feasible" else words
