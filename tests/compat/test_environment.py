"""Environment variables that libraries read: an unknown one is ignored without a word."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator.lanes.cluster import ENVIRONMENT

from .reliance import relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported

CLUSTER = "orchestrator/lanes/cluster.py"
OUTPUT = "orchestrator/common/output_capture.py"
CONNECTION = "orchestrator/tracking/connection.py"
VERIFY = "orchestrator/tracking/verify.py"
LOOP = "orchestrator/lanes/loop.py"


def check_source(module: str, name: str) -> None:
    assert name in inspect.getsource(import_module(module)), f"{module} does not read {name} any more"


@relied_on("RAY_ADDRESS", by=CLUSTER)
def test_ray_reads_address() -> None:
    check_source("ray._private.ray_constants", '"RAY_ADDRESS"')


@relied_on("RAY_TRAIN_V2_ENABLED", by=CLUSTER)
def test_ray_train_reads_version_switch() -> None:
    from ray.train.v2._internal.constants import V2_ENABLED_ENV_VAR

    assert V2_ENABLED_ENV_VAR == "RAY_TRAIN_V2_ENABLED"


@relied_on("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", by=CLUSTER)
def test_ray_train_reads_switch_of_its_preemption_watcher() -> None:
    from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR, ENV_VARS_TO_PROPAGATE

    assert ENABLE_PREEMPTION_WATCHER_ENV_VAR == "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
    assert ENABLE_PREEMPTION_WATCHER_ENV_VAR in ENV_VARS_TO_PROPAGATE
    check_source("ray.train.v2._internal.execution.controller.controller", "ENABLE_PREEMPTION_WATCHER_ENV_VAR")


@relied_on("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", by=CLUSTER)
def test_ray_reads_switch_of_visible_accelerators() -> None:
    from ray._private.accelerators import RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR

    assert RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR == "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"


@relied_on("RAY_USAGE_STATS_ENABLED", by=CLUSTER)
def test_ray_reads_switch_of_usage_statistics() -> None:
    from ray._common.usage.usage_constants import USAGE_STATS_ENABLED_ENV_VAR

    assert USAGE_STATS_ENABLED_ENV_VAR == "RAY_USAGE_STATS_ENABLED"


@relied_on(
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
    "TUNE_DISABLE_SIGINT_HANDLER",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S",
    by=CLUSTER,
)
def test_tune_reads_its_switches() -> None:
    check_source("ray.tune.utils.callback", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS")
    check_source("ray.tune.tune", "TUNE_DISABLE_SIGINT_HANDLER")
    check_source("ray.tune.execution.experiment_state", "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S")


@relied_on("TRANSFORMERS_VERBOSITY", by=(CLUSTER, OUTPUT))
def test_transformers_reads_verbosity() -> None:
    check_source("transformers.utils.logging", 'os.getenv("TRANSFORMERS_VERBOSITY"')


@relied_on("TOKENIZERS_PARALLELISM", by=CLUSTER)
def test_tokenizers_reads_parallelism() -> None:
    import tokenizers

    (library,) = Path(tokenizers.__file__).parent.glob("tokenizers.*.so")
    assert b"TOKENIZERS_PARALLELISM" in library.read_bytes()


@relied_on("CUDA_VISIBLE_DEVICES", by=LOOP)
def test_torch_reads_visible_devices() -> None:
    check_source("torch.cuda", "CUDA_VISIBLE_DEVICES")


@relied_on("PYTORCH_ALLOC_CONF", by=CLUSTER)
def test_torch_reads_settings_of_its_allocator() -> None:
    import torch

    library = (Path(torch.__file__).parent / "lib" / "libc10.so").read_bytes()
    assert b"\0PYTORCH_ALLOC_CONF\0" in library
    assert ENVIRONMENT["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert b"expandable_segments" in library


@relied_on("HF_HUB_DISABLE_PROGRESS_BARS", by=CLUSTER)
def test_huggingface_hub_reads_switch_of_progress_bars() -> None:
    from huggingface_hub import constants

    assert hasattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS")


@relied_on("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", by="orchestrator/backbone/hub.py")
@pytest.mark.parametrize("name", ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN"])
def test_huggingface_hub_reads_the_environment(name: str) -> None:
    module = "huggingface_hub.utils._auth" if name == "HF_TOKEN" else "huggingface_hub.constants"
    check_source(module, f'"{name}"')


@relied_on("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", by=CONNECTION)
@relied_on("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", by=CONNECTION)
@relied_on("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", by=(CONNECTION, VERIFY))
@relied_on("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", by=VERIFY)
@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_REGISTRY_URI",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
        "MLFLOW_TRACKING_URI",
    ],
)
def test_mlflow_reads_its_settings(name: str) -> None:
    from mlflow import environment_variables

    assert getattr(environment_variables, name).name == name
