"""Ray Train's trainer without three processes that have nothing to do for lanes, and that lanes would wait for.

Ray Train's controller reads this file, and has no use for torch, which is why it is not a part of group.py.
"""

from __future__ import annotations

from typing import Any

from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class LaneTrainer(DataParallelTrainer):
    """Starts no process that hands out Ray datasets, since lanes map their rows.

    Nor one that takes back what a dead controller had reserved: no group of lanes is started a second time, and the
    end of the driver takes it back as well.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [one for one in super()._create_default_callbacks() if not isinstance(one, unneeded)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        policy = ByPlacementGroup(arguments["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**arguments | {"scaling_policy": policy})


class ByPlacementGroup(FixedScalingPolicy):
    """A cluster that scales itself hears of lanes by the placement group that waits for room, and from nobody else."""

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass
