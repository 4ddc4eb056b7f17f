"""Ray Train's trainer without three helper processes that lanes do not need and would have to wait for.

Ray Train's controller imports this file and does not need torch, which is why it is not a part of group.py.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class LaneTrainer(DataParallelTrainer):
    """A trainer without the process that distributes Ray datasets, since lanes map their rows.

    It has no process that removes a dead controller's placement group either: whoever starts the group again does that,
    and so does the end of the driver.
    """

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)
        callbacks = [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unneeded)]
        if node := (self.train_loop_config or {}).get("node"):
            callbacks.append(FirstNodeCallback(node))
        has_replicas = getattr(self.backend_config.backend_cls, "has_replica_groups", False)
        return [*callbacks, DeadWorkersCallback()] if has_replicas else callbacks

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        config = self.train_loop_config or {}
        policy = LaneScalingPolicy(arguments["scaling_policy"].scaling_config, config["broker"], config["first"])
        return super()._initialize_and_run_controller(**arguments | {"scaling_policy": policy})


class FirstNodeCallback(ControllerCallback):
    """Starts a group on its planned node; should that have no room for it, the next try is free to go elsewhere.

    Ray places groups in the order of their requests, each where most is left: a small one could take a part of a large
    node, and the lanes of the large group would be spread over two.

    Args:
        node: id of the node.
    """

    def __init__(self, node: str) -> None:
        self._node: str | None = node

    def on_controller_start_worker_group(self, *, scaling_config: Any, num_workers: int) -> dict[str, str] | None:
        """Return the label of the node at the first start."""
        node, self._node = self._node, None
        return {"ray.io/node-id": node} if node else None


class DeadWorkersCallback(WorkerGroupCallback):
    """Shuts down every worker that a poll finds dead, before the first of them is replaced.

    Ray Train asks all other workers to forget their results while it replaces one. A second dead worker among them,
    which is not marked as shut down yet, would end the controller, and with it the healthy workers.
    """

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Keep the group."""
        self._worker_group = worker_group

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Shut down what the poll found dead, unless all are: then the whole group is shut down and started again."""
        failing = worker_group_status.failing_replica_group_indices
        replicas = self._worker_group.get_replica_groups() or []
        if 1 < len(failing) < len(replicas):
            for index in failing:
                replicas[index].shutdown()


class RetiredGroupError(Exception):
    """The group is needed no more; its waiting placement group would make a cluster grow."""


class LaneScalingPolicy(FixedScalingPolicy):
    """A scaling policy without requests to Ray's autoscaling coordinator, a process of its own.

    The autoscaler sees the placement group that waits for resources, which is enough.

    Args:
        scaling_config: the group's workers.
        broker: actor that knows whether the group is still needed.
        lane: a lane of the group.
    """

    def __init__(self, scaling_config: Any, broker: Any, lane: int) -> None:
        super().__init__(scaling_config)
        self._broker, self._lane = broker, lane

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Start the group, or start it again, which Ray Train asks every minute while no node has room for it.

        Raises:
            RetiredGroupError: if it has retired meanwhile.
        """
        if ray.get(self._broker.has_retired.remote(self._lane)):
            raise RetiredGroupError(f"lane {self._lane} has retired")
        return super().make_decision_for_non_running_worker_group()

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass
