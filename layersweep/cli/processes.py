"""`layersweep serve` and `worker`: the long-running sides of the product, imported only when asked for."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from layersweep import logs
from layersweep.cli.common import SERVER_DEFAULT, Server, err, part_of_product
from layersweep.cli.installation import (
    DataDir,
    answering_database,
    as_sentence,
    read_settings,
    shown,
    usable_url,
)
from layersweep.errors import InvalidUsageError
from layersweep.transport import BearerToken, base_url

STOP_SECONDS = 5
MOST_SLOTS = 64
"""Of a worker: what the service takes."""

EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What stands for all addresses of a machine -> the one by which the machine reaches itself."""

COLLECTED_FROM = 50_000
"""New objects after which the youngest generation is looked through."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (LAYERSWEEP_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one (LAYERSWEEP_PORT).")
    ] = None,
    data_dir: DataDir = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the service: the API, the page and the scheduler."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise typer.BadParameter("debug, info, warning or error", param_hint="--log-level")
    settings = read_settings(host=host, port=port, data_dir=data_dir)
    uvicorn = part_of_product("uvicorn", "service")
    server = part_of_product("service.http.server", "service")
    application = part_of_product("service.app", "service")
    logs.configure(level, settings.log_format)
    listener = listen(settings.host, settings.port)
    with listener:
        address = address_of(listener, settings.host)
        with usable_url(), as_sentence(part_of_product("service.common.tracing", "service").TracesError):
            app = application.create_app(settings)
        with answering_database():
            application.prepare(app.state.services.database, settings)
            is_open = not _has_tokens(app.state.services.database)
        try:
            settings.check_exposure(lambda: not is_open)
        except RuntimeError as problem:
            raise InvalidUsageError(str(problem)) from problem
        if is_open:
            _say(settings, "No token was made yet: whoever is on this machine may do everything, others nothing.")
        _say(settings, f"The database: {shown(settings)}")
        _say(settings, f"The data folder: {settings.data_dir.absolute()}")
        if settings.host in EVERY_ADDRESS:
            reached = f"http://{socket.gethostname()}:{listener.getsockname()[1]}"
            _say(settings, f"Other machines of its network reach it as {reached}")
        _say(settings, f"The page: {address}/   The API's docs: {address}/docs   Ctrl-C stops the service.")
        config = uvicorn.Config(
            app,
            http=part_of_product("service.http.connections", "service").protocol(settings.body_idle_seconds),
            log_config=None,
            # The application logs requests itself, and judges by itself who may say from where they come.
            access_log=False,
            proxy_headers=False,
            log_level=level,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        _spare_what_stays()
        # Uvicorn ends what runs, and then raises the signal that it was stopped by: so SIGTERM ends as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.Server(config, app.state.services.notifications).run(sockets=[listener])
        except KeyboardInterrupt:
            logging.getLogger("service").info("stopped")
        finally:
            signal.signal(signal.SIGTERM, before)


def _spare_what_stays() -> None:
    """Modules and the application stay: the collector, which stops every thread, need not go through them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_FROM, 20, 100)


def _say(settings: Any, words: str) -> None:
    """Words for whoever started it; a line of the log where machines read that."""
    if settings.log_format == "json":
        logging.getLogger("service").info(words)
    else:
        err.print(Text(words), soft_wrap=True)


def _has_tokens(database: Any) -> bool:
    return bool(database.read(part_of_product("service.auth.tokens", "service").any_exists))


def worker(
    server: Server = SERVER_DEFAULT,
    name: Annotated[str | None, typer.Option(help="What it is called in lists; default: host and process.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            envvar="LAYERSWEEP_DEVICE",
            help="cpu, or a GPU by UUID or number; default: the first GPU, or the CPU if there is none.",
        ),
    ] = None,
    all_devices: Annotated[
        bool, typer.Option("--all-devices", help="A worker for each GPU of this machine; they end together.")
    ] = False,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="GPU,GPU,…",
            envvar="LAYERSWEEP_DEVICES",
            help="Several GPUs of one model, by UUID or number: one worker, whose trials may share them (tp_size).",
        ),
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option(
            "--tp",
            min=1,
            max=8,
            help="Devices that can share a model: with --all-devices a worker for each so many GPUs; on the CPU "
            "so many processes.",
        ),
    ] = None,
    wait_for_device: Annotated[
        bool,
        typer.Option(
            "--wait-for-device",
            envvar="LAYERSWEEP_WAIT_FOR_DEVICE",
            help="Wait while another worker has the GPU, instead of ending with status 3.",
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of training and of an engine; default: every core. On a shared CPU 1 is steadier."
        ),
    ] = None,
    slots: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            envvar="LAYERSWEEP_SLOTS",
            help="How many trials it executes at once; auto: up to 8 on a GPU, by cores and memory, and 1 on a CPU.",
        ),
    ] = "auto",
    labels: Annotated[
        str,
        typer.Option(
            metavar="KEY=VALUE,…",
            envvar="LAYERSWEEP_LABELS",
            help="Labels that sweeps can ask for with `target: {labels: …}`, as gpu=h100,site=a.",
        ),
    ] = "",
    engine_python: Annotated[
        str | None,
        typer.Option(envvar="LAYERSWEEP_ENGINE_PYTHON", help="Interpreter of the engine child; default: this one."),
    ] = None,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Say what works on this machine and what to install, and stop.")
    ] = False,
    build_seconds: Annotated[
        float | None,
        typer.Option(min=1, envvar="LAYERSWEEP_BUILD_SECONDS", help="Longest time for building an engine."),
    ] = None,
    timing_cache: Annotated[
        bool,
        typer.Option(
            envvar="LAYERSWEEP_TIMING_CACHE",
            help="Keep builders' kernel timings for later builds (TensorRT 10 and later).",
        ),
    ] = True,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Stop after so many trials.")] = None,
    idle_exit_seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long without a trial.")] = None,
) -> None:
    """Run a worker on this machine's device: it claims trials and executes them. Ctrl-C gives running ones back."""
    if doctor:
        lines, works = part_of_product("workers.doctor", "worker").report(engine_python)
        for line in lines:
            print(line)
        raise typer.Exit(0 if works else 1)
    form = os.environ.get(logs.VARIABLE) or "text"
    if form not in logs.FORMS:
        raise InvalidUsageError(f"{logs.VARIABLE} is {form!r}: use {' or '.join(logs.FORMS)}")
    slot_count, own_labels = parsed_slots(slots), parsed_labels(labels)
    logs.configure(logging.INFO, form)
    if all_devices:
        for option, given in (("--device (LAYERSWEEP_DEVICE)", device), ("--devices (LAYERSWEEP_DEVICES)", devices)):
            if given is not None:
                raise InvalidUsageError(f"--all-devices and {option} are both given: leave one out")
        options = {
            "--server": server,
            "--name": name,
            "--threads": threads,
            "--slots": slot_count,
            "--labels": labels or None,
            "--engine-python": engine_python,
            "--build-seconds": build_seconds,
            "--max-trials": max_trials,
            "--idle-exit-seconds": idle_exit_seconds,
        }
        switches = {"--no-timing-cache": not timing_cache, "--wait-for-device": wait_for_device}
        raise typer.Exit(_run_all_devices(options, [switch for switch, given in switches.items() if given], tp or 1))
    if device is not None and devices is not None:
        raise InvalidUsageError("--device (LAYERSWEEP_DEVICE) and --devices are both given: leave one out")
    main, settings = part_of_product("workers.main", "worker"), part_of_product("workers.settings", "worker")
    group = tuple(each.strip() for each in devices.split(",")) if devices else ()
    status = main.run(
        base_url(server),
        BearerToken.of_environment(),
        identity=settings.WorkerIdentity(name, own_labels),
        selection=settings.DeviceSelection(device, group, ranks=tp),
        processes=settings.ProcessSettings(threads, slot_count, engine_python, build_seconds),
        caches=settings.CacheSettings(keeps_timings=timing_cache),
        stops=settings.StopConditions(max_trials, idle_exit_seconds, if_device_is_taken=not wait_for_device),
    )
    raise typer.Exit(status)


def parsed_slots(given: str) -> int | None:
    """The number of slots; None: the worker is to choose it."""
    if given == "auto":
        return None
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= MOST_SLOTS:
        raise typer.BadParameter(f"{given!r} is neither auto nor a number from 1 to {MOST_SLOTS}", param_hint="--slots")
    return int(given)


def parsed_labels(given: str) -> dict[str, str]:
    """Labels by their keys."""
    try:
        return part_of_product("layers.labels", "worker").parse_labels(given)
    except ValueError as problem:
        raise typer.BadParameter(f"{problem}: use key=value,key=value", param_hint="--labels") from problem


def _run_all_devices(options: Mapping[str, str | float | None], switches: list[str], group_size: int) -> int:
    every_device = part_of_product("workers.every_device", "worker")
    found = _grouped(every_device.slots_each(), group_size)
    given = {"--threads": every_device.threads_each(len(found))}
    given |= {option: value for option, value in options.items() if value is not None}
    commands: dict[str, list[str]] = {}
    for number, (device, slots) in enumerate(found.items()):
        own = {"--slots": slots, **given, "--devices" if group_size > 1 else "--device": device}
        if "--name" in own:
            own["--name"] = f"{own['--name']}-{number}"
        flags = [str(part) for option in own.items() for part in option]
        commands[device] = [sys.executable, "-m", "layersweep", "worker", *flags, *switches]
    return every_device.run(commands)


def _grouped(slots: Mapping[str, int], size: int) -> dict[str, int]:
    """So many GPUs at a time, and their slots together. Raises InvalidUsageError where some would be left."""
    names = list(slots)
    if len(names) % size:
        raise InvalidUsageError(f"{len(names)} GPUs cannot be shared out by {size}: name groups of them by --devices")
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    return {",".join(group): sum(slots[name] for name in group) for group in groups}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises InvalidUsageError where the port is in use or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then: without it every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Without this a service that was just stopped could not be started again for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise InvalidUsageError(
                f"port {port} on {host} is in use, perhaps by another `layersweep serve`: "
                f"stop that one, or choose another port with --port {port + 1}"
            ) from problem
        raise InvalidUsageError(f"cannot listen on {host}, port {port}: {problem.strerror or problem}") from problem
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """Where a browser on this machine finds what listens: no browser opens the address that stands for all."""
    port = listener.getsockname()[1]
    host = EVERY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
