"""Samplers that compute in a process of their own: as if they had stayed, also after that process was killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from layers.dataset_facts import DatasetDescription
from layers.space.document import read_document
from service.common.states import TrialState
from service.database.sessions import Database
from service.scheduling import scheduler
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.sampler_pool import SamplerPool
from service.scheduling.sampler_process import RemoteStudy, SamplerProcess, SamplerProcessError, SamplerTimeoutError
from service.scheduling.scheduler import Scheduler
from service.scheduling.studies import StudyArguments, TrialResult
from service.settings import Settings
from tests.service.sweep_driver import Driver, document, small

DATASET: DatasetDescription = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}


@pytest.fixture
def driver(tmp_path: Path) -> Generator[Driver]:
    # One database: what differs between the two is not looked at here.
    database = Database(f"sqlite:///{tmp_path}/layersweep.db")
    database.upgrade()
    driver = Driver(database, Settings(database_url=str(database.url), data_dir=tmp_path / "data"))
    driver.add_dataset()
    yield driver
    database.close()


def _study(driver: Driver, sweep_id: str) -> object:
    held = driver.scheduler._held.find(sweep_id)
    assert held is not None
    assert held.scheduler is not None
    return held.scheduler.study


def test_a_sampler_that_learns_moves_and_suggests_the_same(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "OWN_PROCESS_ASKS", 12)
    search = {"sampler": "tpe", "seed": 3, "reuse": False}
    stays, moves = (driver.post(document(name=name, search=search, budget={"trials": 40})) for name in ("a", "b"))
    driver.run(stays, 30)
    driver.cancel(stays)
    monkeypatch.setattr(Scheduler, "is_running", True)
    driver.scheduler = driver.new_scheduler()
    try:
        driver.run(moves, 20)
        study = _study(driver, moves)
        assert isinstance(study, RemoteStudy)
        for process in multiprocessing.active_children():
            if process.name == "samplers":
                process.kill()
                process.join()
        driver.finish(driver.claim() or pytest.fail("nothing to claim"))
        with pytest.raises(SamplerProcessError, match="built again"):
            driver.step(moves)
        driver.run(moves, 9)
        assert _study(driver, moves) is not study
    finally:
        driver.scheduler.stop()
    assert driver.sequence(moves) == driver.sequence(stays)


def test_a_sampler_that_takes_too_long_is_stopped_and_suggests_the_same_again(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "OWN_PROCESS_ASKS", 4)
    search = {"sampler": "tpe", "seed": 3, "reuse": False}
    undisturbed, stopped = (driver.post(small(name=name, search=search)) for name in ("a", "b"))
    driver.run(undisturbed, 8)
    driver.cancel(undisturbed)
    monkeypatch.setattr(Scheduler, "is_running", True)
    driver.scheduler = driver.new_scheduler()
    try:
        driver.run(stopped, 7)
        (process,) = (each for each in multiprocessing.active_children() if each.name == "samplers")
        os.kill(process.pid or 0, signal.SIGSTOP)
        driver.scheduler._samplers._processes[0]._call_seconds = 0.2
        driver.finish(driver.claim() or pytest.fail("nothing to claim"))
        with pytest.raises(SamplerTimeoutError, match=r"more than 0\.2 seconds"):
            driver.step(stopped)
        assert not process.is_alive()
        driver.scheduler._samplers._processes[0]._call_seconds = 60
        driver.step(stopped)
    finally:
        driver.scheduler.stop()
    assert driver.sequence(stopped) == driver.sequence(undisturbed)


def test_a_sweep_s_sampler_has_a_process_of_its_own_while_there_is_room() -> None:
    space = read_document(small(), find_dataset=lambda name: DATASET)[0].space
    arguments: StudyArguments = {
        "space": space,
        "goals": ["minimize"],
        "sampler": "tpe",
        "seed": 0,
        "population": 8,
    }
    pool = SamplerPool(most=2, call_seconds=60)
    try:
        studies = [pool.study(make_seconds=60, **arguments) for _ in range(3)]
        assert len({id(study._process) for study in studies}) == 2
        shared = studies[2]._process
        studies = [study for study in studies if study._process is shared]
        pool.close_idle()
        assert len([each for each in multiprocessing.active_children() if each.name == "samplers"]) == 1
    finally:
        pool.close()


def test_what_a_sampler_raises_in_its_process_is_raised_here() -> None:
    space = read_document(small(), find_dataset=lambda name: DATASET)[0].space
    process = SamplerProcess(call_seconds=60)
    try:
        study = process.study(space=space, goals=["minimize"], sampler="tpe", seed=0, population=8)
        assert study.ask().ask == 0
        study.tell(0, TrialResult(TrialState.COMPLETE, (1.0,)))
        study.tell(0, TrialResult(TrialState.COMPLETE, (1.0,)))
        with pytest.raises(SamplerProcessError, match="ValueError"):
            study.ask()
        assert study.ask().ask == 1
    finally:
        process.close()
    with pytest.raises(SamplerProcessError, match="has ended"):
        study.ask()


def test_a_trial_costs_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    space = read_document(small(), find_dataset=lambda name: DATASET)[0].space
    arguments: StudyArguments = {
        "space": space,
        "goals": ["minimize", "minimize"],
        "sampler": "nsga2",
        "seed": 0,
        "population": 4,
    }
    here, process, calls = OptunaStudy(**arguments), SamplerProcess(call_seconds=60), 0
    call = SamplerProcess.call

    def counted(process: SamplerProcess, request: Any) -> Any:
        nonlocal calls
        calls += 1
        return call(process, request)

    monkeypatch.setattr(SamplerProcess, "call", counted)
    changed: list[object] = []
    try:
        there = process.study(**arguments)
        for ask in range(12):
            assert there.ask() == here.ask()
            for study in (there, here):
                study.tell(ask, TrialResult(TrialState.COMPLETE, (float(ask % 5), float(ask % 3))))
        assert calls == 12
        changed = [there.take_changed_attributes(), here.take_changed_attributes()]
        assert (calls, there.take_changed_attributes()) == (13, {})
    finally:
        process.close()
    assert changed[0] == changed[1] != {}
