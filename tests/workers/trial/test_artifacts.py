"""The files of a trial are offered to a service that comes back, and to none that stays away or refuses them."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.workers.scripted_service import ScriptedService
from workers.interruption import DrainedError, Interruption
from workers.trial.artifacts import ArtifactStore


class Patient(Interruption):
    """Does not really wait; after `tries` waits it is set."""

    def __init__(self, tries: int) -> None:
        super().__init__()
        self.left = tries

    def wait(self, seconds: float) -> bool:
        self.left -= 1
        if self.left < 0:
            self.set(DrainedError("stop"))
        return super().wait(0)


def offered(scripted: ScriptedService, answers: list[httpx2.Response | None], tries: int = 5) -> list[str]:
    """What a store hears that offers a trial to a service with these answers; None: it does not answer."""

    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            raise httpx2.ConnectError("refused")
        return answer

    scripted.script = script
    return ArtifactStore(scripted.client(), "T0", 1, Patient(tries)).wants({"validation_loss": 1.0})


def test_a_service_that_is_restarted_is_offered_the_files_when_it_answers_again(scripted: ScriptedService) -> None:
    wanted = httpx2.Response(200, json={"wanted": ["model.onnx"]})
    assert offered(scripted, [None, None, wanted]) == ["model.onnx"]


@pytest.mark.parametrize("answer", [None, httpx2.Response(404, json={"detail": "no such path"})])
def test_no_trial_fails_for_its_files(scripted: ScriptedService, answer: httpx2.Response | None) -> None:
    assert offered(scripted, [answer]) == []
