"""A trial ends for reasons of its own only."""

import pytest

from orchestrator.lanes.endings import RESTARTS, Cause, Verdict, verdict


@pytest.mark.parametrize(
    ("cause", "restarts", "expected"),
    [
        (Cause.FAILED, 0, Verdict.END_TRIAL),
        (Cause.FAILED, RESTARTS, Verdict.END_TRIAL),
        (Cause.PROCESS_DIED, 0, Verdict.GO_ON),
        (Cause.PROCESS_DIED, RESTARTS - 1, Verdict.GO_ON),
        (Cause.PROCESS_DIED, RESTARTS, Verdict.STOP_SWEEP),
        (Cause.CANCELLED, 0, Verdict.STOP_SWEEP),
        (Cause.TUNE_ENDED, 0, Verdict.STOP_SWEEP),
    ],
)
def test_only_what_a_lane_answers_ends_a_trial(cause: Cause, restarts: int, expected: Verdict) -> None:
    assert verdict(cause, stopped=False, restarts=restarts) is expected
    after_the_stop = Verdict.END_TRIAL if cause is Cause.FAILED else Verdict.LEAVE_OPEN
    assert verdict(cause, stopped=True, restarts=restarts) is after_the_stop
