"""Optuna's own way to share a study: processes that ask and tell through one RDBStorage. scheduling.py's yardstick."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

STUDY = "yardstick"
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "num_layers": IntDistribution(1, 64),
    "hidden_size": IntDistribution(0, 15),
    "norm.eps": FloatDistribution(1e-8, 1e-4, log=True),
    "training.learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "training.weight_decay": FloatDistribution(0.0, 0.5),
}
"""The same five parameters as scheduling.py's sweep: four numbers and sixteen widths by index."""

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
}


def storage(url: str, *, durable: bool = True) -> RDBStorage:
    """RDBStorage in the service's mode (SQLite: WAL, synchronous FULL); not `durable` while rows are filled in."""
    arguments = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {"pool_size": 2}
    made = RDBStorage(url, engine_kwargs=arguments)
    level = "FULL" if durable else "OFF"

    @sqlalchemy.event.listens_for(made.engine, "connect")
    def _mode(connection: Any, _record: Any) -> None:
        if url.startswith("sqlite"):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={level}")
        elif not durable:
            connection.execute("SET synchronous_commit = off")

    made.engine.dispose()
    return made


def fill(url: str, told: int, seed: int = 0, objectives: int = 1) -> None:
    """Make a study with `told` random trials that are complete."""
    generator = random.Random(seed)
    where = storage(url, durable=False)
    study = optuna.create_study(study_name=STUDY, storage=where, directions=["minimize"] * objectives)
    identity = where.get_study_id_from_name(study.study_name)
    for _ in range(told):
        parameters = {
            "num_layers": generator.randint(1, 64),
            "hidden_size": generator.randint(0, 15),
            "norm.eps": 10 ** generator.uniform(-8, -4),
            "training.learning_rate": 10 ** generator.uniform(-5, -1),
            "training.weight_decay": generator.uniform(0, 0.5),
        }
        values = [generator.random() for _ in range(objectives)]
        frozen = create_trial(state=TrialState.COMPLETE, params=parameters, distributions=DISTRIBUTIONS, values=values)
        where.create_new_trial(identity, template_trial=frozen)


def drive(url: str, sampler: str, workers: int, seconds: float) -> dict[str, float]:
    """Ask and tell for `seconds` by as many processes; trials a second of all of them."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=_work, args=(url, sampler, seed, seconds, barrier, results)) for seed in range(workers)
    ]
    for process in processes:
        process.start()
    counts = [results.get(timeout=seconds + 300) for _ in processes]
    for process in processes:
        process.join()
    trials = sum(count for count, _ in counts)
    return {"trials_per_s": trials / max(taken for _, taken in counts), "trials": trials}


def _work(url: str, sampler: str, seed: int, seconds: float, barrier: Any, results: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=STUDY, storage=storage(url), sampler=SAMPLERS[sampler](seed))
    study.ask(DISTRIBUTIONS)  # the first ask reads every trial: not what is compared
    barrier.wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        trial = study.ask(DISTRIBUTIONS)
        values = (trial.params["norm.eps"], trial.params["num_layers"])
        study.tell(trial, values[: len(study.directions)])
        count += 1
    results.put((count, time.perf_counter() - started))
