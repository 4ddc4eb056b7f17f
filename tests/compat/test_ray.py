"""What we use of Ray beyond its public interface, and the signatures of what we override."""

from __future__ import annotations

import inspect
import mmap
from pathlib import Path

import pytest

from .reliance import parameters, relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported

TRAINER = "orchestrator/lanes/trainer.py"
BACKEND = "orchestrator/lanes/backend.py"
TUNE = "orchestrator/lanes/tune.py"
PROXY = "orchestrator/lanes/proxy.py"


@relied_on(
    "ray.train.v2._internal.callbacks.DatasetsCallback",
    "ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback",
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._create_default_callbacks",
    by=TRAINER,
)
def test_ray_train_names_callbacks_we_leave_out() -> None:
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    assert parameters(DataParallelTrainer._create_default_callbacks) == "self"
    source = inspect.getsource(DataParallelTrainer._create_default_callbacks)
    for callback in (DatasetsCallback, PlacementGroupCleanerCallback):
        assert f"{callback.__name__}(" in source, f"{callback.__name__} is no default callback any more"


@relied_on("ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._initialize_and_run_controller", by=TRAINER)
def test_ray_train_passes_scaling_policy_by_keyword() -> None:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    assert parameters(DataParallelTrainer._initialize_and_run_controller) == "self, **controller_init_kwargs"
    assert "scaling_policy=create_scaling_policy(self.scaling_config)" in inspect.getsource(DataParallelTrainer.fit)


@relied_on(
    "ray.train.v2._internal.execution.scaling_policy.FixedScalingPolicy",
    "ray.train.v2._internal.execution.scaling_policy.scaling_policy.ScalingPolicy._cancel_resource_request",
    "ray.train.v2._internal.execution.scaling_policy.scaling_policy.ScalingPolicy._maybe_send_resource_request",
    "ray.train.v2._internal.execution.scaling_policy.scaling_policy.ScalingPolicy._send_resource_request",
    by=TRAINER,
)
def test_ray_train_scaling_policy_asks_autoscaler_in_three_methods() -> None:
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.scaling_policy.scaling_policy import ScalingPolicy
    from ray.train.v2.api.config import ScalingConfig

    config = ScalingConfig(num_workers=2)
    assert FixedScalingPolicy(config).scaling_config is config
    for method in ("_send_resource_request", "_maybe_send_resource_request", "_cancel_resource_request"):
        assert parameters(getattr(FixedScalingPolicy, method)) == "self"
    asking = [name for name, method in vars(ScalingPolicy).items() if "_resource_request(" in _source(method)]
    assert sorted(asking) == [  # whoever calls the coordinator, and whoever calls those
        "_cancel_resource_request",
        "_get_num_workers_for_resource_request",
        "_maybe_send_resource_request",
        "_send_resource_request",
        "after_controller_start",
        "before_controller_abort",
        "before_controller_shutdown",
    ]


@relied_on("ray._private.state.state", by="orchestrator/lanes/preemption.py")
def test_ray_tells_draining_nodes_with_their_deadlines() -> None:
    from ray._private.state import GlobalState, state

    assert isinstance(state, GlobalState)
    assert parameters(GlobalState.get_draining_nodes) == "self"
    description = str(GlobalState.get_draining_nodes.__doc__)
    assert "deadline timestamps in ms" in description
    assert "no deadline if the timestamp is 0" in description


@relied_on(
    "ray.train.v2._internal.execution.callback.WorkerGroupCallback.after_worker_group_poll_status",
    "ray.train.v2._internal.execution.callback.WorkerGroupCallback.after_worker_group_start",
    "ray.train.v2._internal.execution.callback.WorkerGroupCallback",
    "ray.train.v2._internal.execution.scaling_policy.fixed.FixedScalingPolicy.make_decision_for_non_running_worker_group",
    by=TRAINER,
)
def test_ray_train_tells_callbacks_which_replicas_are_dead() -> None:
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
    from ray.train.v2._internal.execution.worker_group.execution_group import ReplicaGroup
    from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup

    assert parameters(WorkerGroupCallback.after_worker_group_start) == "self, worker_group"
    assert parameters(WorkerGroupCallback.after_worker_group_poll_status) == "self, worker_group_status"
    assert parameters(FixedScalingPolicy.make_decision_for_non_running_worker_group) == "self"
    assert isinstance(vars(WorkerGroupPollStatus)["failing_replica_group_indices"], property)
    assert parameters(WorkerGroup.get_replica_groups) == parameters(ReplicaGroup.shutdown) == "self"
    replacing = inspect.getsource(WorkerGroup._replace_replica_group_impl)
    assert "rg.is_active()" in replacing, "replicas that were shut down are not asked for anything"


@relied_on(
    "ray.train.v2._internal.execution.callback.ControllerCallback",
    "ray.train.v2._internal.execution.callback.ControllerCallback.on_controller_start_worker_group",
    by=TRAINER,
)
def test_ray_train_asks_callbacks_for_the_label_of_a_node() -> None:
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.controller.controller import TrainController

    expected = "self, scaling_config, num_workers"
    assert parameters(ControllerCallback.on_controller_start_worker_group) == expected
    source = inspect.getsource(TrainController._start_worker_group)
    assert "label_selector = [selector.copy() for _ in range(num_workers)]" in source


@relied_on("ray.train.backend.Backend.has_replica_groups", "ray.train.BackendConfig.backend_cls", by=BACKEND)
def test_ray_train_backend_has_replica_groups() -> None:
    from ray.train.backend import Backend, BackendConfig
    from ray.train.v2._internal.execution.controller import controller
    from ray.train.v2._internal.execution.worker_group import worker_group

    assert not Backend.has_replica_groups
    assert isinstance(vars(BackendConfig)["backend_cls"], property)
    for module in (controller, worker_group):  # the former replaces one worker alone, the latter makes no process group
        assert "backend_cls.has_replica_groups" in inspect.getsource(module)


@relied_on(
    "ray.tune.search.searcher.Searcher.on_trial_complete",
    "ray.tune.search.searcher.Searcher.restore",
    "ray.tune.search.searcher.Searcher.save",
    "ray.tune.search.searcher.Searcher.suggest",
    by=TUNE,
)
def test_tune_searcher_signatures() -> None:
    from ray.tune.search import Searcher

    assert parameters(Searcher.suggest) == "self, trial_id"
    assert parameters(Searcher.on_trial_complete) == "self, trial_id, result, error"
    assert parameters(Searcher.save) == parameters(Searcher.restore) == "self, checkpoint_path"
    assert Searcher.FINISHED == "FINISHED"


@relied_on(
    "ray.tune.schedulers.trial_scheduler.FIFOScheduler.on_trial_complete",
    "ray.tune.schedulers.trial_scheduler.FIFOScheduler.on_trial_error",
    "ray.tune.schedulers.trial_scheduler.FIFOScheduler.on_trial_remove",
    "ray.tune.schedulers.trial_scheduler.FIFOScheduler.on_trial_result",
    by=TUNE,
)
def test_tune_scheduler_signatures() -> None:
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    assert parameters(FIFOScheduler.on_trial_result) == "self, tune_controller, trial, result"
    assert parameters(FIFOScheduler.on_trial_complete) == "self, tune_controller, trial, result"
    assert parameters(FIFOScheduler.on_trial_error) == "self, tune_controller, trial"
    assert parameters(FIFOScheduler.on_trial_remove) == "self, tune_controller, trial"
    assert (TrialScheduler.CONTINUE, TrialScheduler.STOP) == ("CONTINUE", "STOP")
    assert parameters(Trial.should_recover) == "self"
    assert isinstance(Trial.error_file, property)


@relied_on("ray.tune.stopper.stopper.Stopper.stop_all", by=TUNE)
def test_tune_stopper_signatures() -> None:
    from ray.tune import Stopper

    assert parameters(Stopper.stop_all) == "self"
    assert parameters(Stopper.__call__) == "self, trial_id, result"


@relied_on(
    "ray.tune.trainable.trainable.Trainable.reset_config",
    "ray.tune.trainable.trainable.Trainable.setup",
    "ray.tune.trainable.trainable.Trainable.step",
    by=PROXY,
)
def test_tune_trainable_signatures() -> None:
    from ray.tune import Trainable

    assert parameters(Trainable.setup) == "self, config"
    assert parameters(Trainable.step) == "self"
    assert parameters(Trainable.reset_config) == "self, new_config"


@relied_on("RAY_worker_maximum_startup_concurrency", by="orchestrator/lanes/cluster.py")
def test_raylet_knows_startup_concurrency() -> None:
    import ray

    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    with raylet.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert data.find(b"worker_maximum_startup_concurrency") >= 0


def _source(attribute: object) -> str:
    return inspect.getsource(attribute) if inspect.isfunction(attribute) else ""


@relied_on("ray.tune.execution.class_cache", by=TUNE)
def test_ray_tune_gives_trials_no_keys_where_we_leave_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune import Trainable
    from ray.tune.execution import class_cache

    from orchestrator.lanes.tune import keep_keys_from_trials

    def environment() -> dict[str, str]:
        actor = class_cache._ActorClassCache().get(Trainable)
        variables: dict[str, str] = actor._default_options["runtime_env"]["env_vars"]
        return variables

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE)
    assert environment()["AWS_SECRET_ACCESS_KEY"] == "s3cret", "Tune passes no keys on any more"
    keep_keys_from_trials()
    assert "s3cret" not in environment().values()
    assert environment()["RAY_TRAIN_V2_ENABLED"] == "1"
