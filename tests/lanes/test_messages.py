"""The broker's messages, as the workers of a lane pass them on."""

import pytest

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.lanes.broker import Signal
from orchestrator.lanes.messages import message_from_json, message_to_json


@pytest.mark.parametrize(
    "message",
    [
        None,
        Signal.RETIRE,
        Signal.REJOIN,
        Job(trial=TrialKey("mail/compose:prefix+lora", 3), params={"a": [1, None]}, seed=4, start=0, stop=5, total=9),
        Job(
            trial=TrialKey("mail/lora", 3), params={}, seed=4, start=1, stop=5, total=9,
            checkpoint="checkpoints/x", split="test", retraining=2,
        ),
    ],
)  # fmt: skip
def test_broker_message_survives_json(message: Job | Signal | None) -> None:
    assert message_from_json(message_to_json(message)) == message
