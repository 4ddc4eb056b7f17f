"""The engine's lab, and a lane with its backbone and dataset in memory."""

from pathlib import Path

import pytest
import torch

from orchestrator.lanes.lane import Lane
from orchestrator.lanes.setup import LaneSetup

from ..engine.conftest import Lab, lab, make_lab, one_thread, prompted, sources

__all__ = ["lab", "lane", "make_lab", "one_thread", "prompted", "sources"]


@pytest.fixture
def lane(lab: Lab, tmp_path: Path) -> Lane:
    """A lane that has mapped everything."""
    setup = LaneSetup(str(tmp_path), "mail-1", "tiny", "float32", {}, lab.training, 0, 1)
    return lane_with(lab, setup)


def lane_with(lab: Lab, setup: LaneSetup) -> Lane:
    """Return a lane with the lab's backbone and dataset in memory, for the task ``mail``."""
    lane = Lane(setup, torch.device("cpu"), torch.float32)
    lane._backbones["mail"], lane._datasets["mail"] = lab.backbone, lab.dataset
    lane.fingerprints["mail"] = lab.backbone.fingerprint()
    return lane
