"""Ray Train's trainer without three helper processes that lanes do not need and would have to wait for.

Ray Train's controller imports this file and does not need torch, which is why it is not a part of group.py.
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
    """A trainer without the process that distributes Ray datasets, since lanes map their rows.

    It has no process that removes a dead controller's placement groups either: no group of lanes is started a second
    time, and the end of the driver removes them as well.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unneeded)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        policy = PlacementGroupScalingPolicy(arguments["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**arguments | {"scaling_policy": policy})


class PlacementGroupScalingPolicy(FixedScalingPolicy):
    """A scaling policy without requests to Ray's autoscaling coordinator, a process of its own.

    The autoscaler sees the placement group that waits for resources, which is enough.
    """

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass
