"""Slots of a lane where the configuration leaves them open."""

import pytest

from orchestrator.engine.default_pack_size import default_pack_size


@pytest.mark.parametrize(
    ("batches", "max_length", "trials", "offered"),
    [
        ([4, 4, 4], 16, None, 8),
        ([4, 4, 4], 16, 64, 8),
        ([4, 4, 4], 16, 16, 2),
        ([4, 4, 4], 16, 12, 1),  # what is under way cannot be stopped early by what is not there yet
        ([4, 4, 4], 16, 1, 1),
        ([8, 8, 16], 16, None, 8),
        ([8, 8, 16], 32, None, 1),  # a batch of 256 tokens fills a core
        ([16], 128, 1000, 1),
        ([], 64, None, 8),
    ],
)
def test_slots(batches: list[int], max_length: int, trials: int | None, offered: int) -> None:
    defaults: list[dict[str, object]] = [{"batch_size": size} for size in batches]
    assert default_pack_size([*defaults, {"template": "label"}], max_length, trials) == offered
