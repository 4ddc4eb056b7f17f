"""How far the final is, and how long the rest takes."""

from dataclasses import replace

import pytest

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.final.progress import FinalProgress, MethodProgress

from ..small_plan import trial

RECORDS = (
    trial("mail/lora/1", values={40: 0.8}, lane_seconds=40.0),
    trial("mail/ia3/0", values={40: 0.7}, lane_seconds=80.0),
)


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def job(name: str, retraining: int | None = None, start: int = 0) -> Job:
    trial_job = Job(trial=TrialKey.parse(name), params={}, seed=1, start=start, stop=40, total=40, split="test")
    return replace(trial_job, retraining=retraining)


RETRAININGS = [job("mail/lora/1", number) for number in range(2)]
SCORING = job("mail/ia3/0", start=40)


def test_final_progress_counts_retrainings_and_scorings_by_method() -> None:
    progress = FinalProgress(RECORDS)
    progress.add([*RETRAININGS, SCORING], answered=[])
    assert progress.status({}).methods == {
        "mail/lora": MethodProgress(retrained=0, retrainings=2, scored=0, scorings=0),
        "mail/ia3": MethodProgress(retrained=0, retrainings=0, scored=0, scorings=1),
    }
    progress.finish(RETRAININGS[1])
    progress.finish(SCORING)
    assert progress.status({}).methods == {
        "mail/lora": MethodProgress(retrained=1, retrainings=2, scored=0, scorings=0),
        "mail/ia3": MethodProgress(retrained=0, retrainings=0, scored=1, scorings=1),
    }


def test_final_progress_estimates_the_rest_by_lane_time_of_steps() -> None:
    clock = Clock()
    progress = FinalProgress(RECORDS, clock)
    slow = job("mail/ia3/0", 0)  # a step of ia3 takes 2 s, one of lora 1 s: 160 s of lane time in all
    progress.add([*RETRAININGS, slow], answered=[])
    clock.seconds += 30
    assert progress.status({}).seconds_left is None
    assert progress.status({RETRAININGS[0].name: 4}).seconds_left is None, "4 of 160 s are not enough"
    progress.finish(RETRAININGS[0])
    assert progress.status({slow.name: 10}).seconds_left == pytest.approx(30 * (160 - 60) / 60)


def test_final_progress_takes_no_time_for_what_was_done_before() -> None:
    clock = Clock()
    progress = FinalProgress(RECORDS, clock)
    progress.add(RETRAININGS, answered=[RETRAININGS[0].id])
    assert progress.status({}).methods["mail/lora"].retrained == 1
    clock.seconds += 10
    assert progress.status({RETRAININGS[1].name: 20}).seconds_left == pytest.approx(10)
