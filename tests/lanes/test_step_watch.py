from __future__ import annotations

from contextlib import ExitStack

import pytest

from orchestrator.lanes.step_watch import Hang, HangLimits, StepWatch, Subject, Work

LIMITS = HangLimits(least_s=60.0, factor=10.0, first_s=900.0)


@pytest.mark.parametrize(
    ("before", "seconds"),
    [
        ([0.0], 60.0),
        ([6.0], 60.0),
        ([6.1], 61.0),
        ([4.0, 5.0], 90.0),  # a pack does the work of all
        ([None], 900.0),
        ([None, 5.0], 900.0),
        ([None, 100.0], 1000.0),
    ],
)
def test_silence_may_last_ten_times_as_long_as_before(before: list[float | None], seconds: float) -> None:
    assert LIMITS.seconds(before) == pytest.approx(seconds)


class Lane:
    """A watch whose clock the test turns, one tick a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watch = StepWatch(LIMITS, 1.0, clock=lambda: self.now)

    def work(self, work: Work, *subjects: Subject, seconds: float) -> Hang | None:
        """Do work that takes so many seconds, without a sign of life; return the hang that is noticed first."""
        with self.watch.during(work, subjects):
            return self.wait(seconds)

    def wait(self, seconds: float) -> Hang | None:
        end, hang = self.now + seconds, None
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            hang = hang or self.watch.tick()
        return hang


def lora(step: int = 1, number: int = 0, step_s: float | None = None) -> Subject:
    return Subject(f"mail/lora/{number}", "mail", step, step_s)


def test_first_step_may_take_long_and_a_later_one_not() -> None:
    lane = Lane()
    assert lane.work(Work.TRAIN, lora(1), seconds=890) is None
    lane = Lane()
    assert lane.work(Work.TRAIN, lora(1), seconds=2) is None
    hang = lane.work(Work.TRAIN, lora(2), seconds=70)
    assert hang is not None
    assert hang.reason == "hung at step 2, training: nothing happened for 61 s"


def test_slow_steps_lengthen_the_limit() -> None:
    lane = Lane()
    assert lane.work(Work.TRAIN, lora(1), seconds=30) is None
    assert lane.work(Work.TRAIN, lora(2), seconds=299) is None
    assert lane.work(Work.TRAIN, lora(3), seconds=2980) is None


def test_step_of_a_resumed_trial_is_compared_with_its_earlier_ones() -> None:
    lane = Lane()
    assert lane.work(Work.TRAIN, lora(9, step_s=20.0), seconds=199) is None
    hang = lane.work(Work.TRAIN, lora(9, number=1, step_s=1.0), seconds=70)
    assert hang is not None
    assert hang.subjects == (lora(9, number=1, step_s=1.0),)


def test_signs_of_life_let_a_long_evaluation_go_on() -> None:
    lane = Lane()
    lane.work(Work.SCORE_TEST, lora(), seconds=1)
    with lane.watch.during(Work.SCORE_TEST, [lora()]):
        for _ in range(40):
            assert lane.wait(50) is None
            lane.watch.progress()
        hang = lane.wait(501)
    assert hang is not None
    assert hang.work is Work.SCORE_TEST


def test_evaluation_is_compared_with_that_of_other_trials() -> None:
    lane = Lane()
    lane.work(Work.SCORE_VALIDATION, lora(), seconds=1)
    assert lane.work(Work.SCORE_VALIDATION, lora(number=1), seconds=70) is not None
    assert lane.work(Work.SCORE_TEST, lora(number=1), seconds=70) is None, "another split, perhaps another metric"


def test_waiting_between_works_is_no_hang() -> None:
    lane = Lane()
    lane.work(Work.TRAIN, lora(1), seconds=1)
    assert lane.wait(10_000) is None
    assert lane.work(Work.TRAIN, lora(2), seconds=59) is None


def test_time_of_a_stopped_process_does_not_count() -> None:
    lane = Lane()
    lane.work(Work.TRAIN, lora(1), seconds=1)
    with ExitStack() as stack:
        stack.enter_context(lane.watch.during(Work.TRAIN, [lora(2)]))
        lane.now += 100_000.0
        assert lane.watch.tick() is None
        assert lane.wait(50) is None


def test_hang_of_a_pack_names_all_members() -> None:
    lane = Lane()
    lane.work(Work.TRAIN, lora(3, 0), lora(5, 1), seconds=4)
    hang = lane.work(Work.TRAIN, lora(4, 0), lora(6, 1), seconds=90)
    assert str(hang) == "mail/lora/0, mail/lora/1 hung at step 4/6, training: nothing happened for 81 s"
