"""Ray Train with what this project uses of its internals, or plainly where an installed Ray has renamed those.

The internals save processes, and let a worker be replaced alone. Without them, each lane is one plain trainer.
"""

from __future__ import annotations

import logging
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig, TorchTrainer

log = logging.getLogger(__name__)


def has_replicas() -> bool:
    """Return whether groups of lanes are possible, whose workers are replaced one by one."""
    return hasattr(Backend, "has_replica_groups") and _lane_trainer() is not None


def lane_backend() -> BackendConfig:
    """Return the backend of lanes of one worker, which do not communicate with one another."""
    if not has_replicas():
        return TorchConfig(backend="gloo")
    from orchestrator.lanes.backend import LaneBackendConfig

    return LaneBackendConfig()


def make_trainer(train_loop: Any, backend_config: BackendConfig, **arguments: Any) -> Any:
    """Return a trainer for a group of lanes; arguments as for :class:`ray.train.torch.TorchTrainer`."""
    if trainer := _lane_trainer():
        return trainer(train_loop, backend_config=backend_config, **arguments)
    assert isinstance(backend_config, TorchConfig)
    return TorchTrainer(train_loop, torch_config=backend_config, **arguments)


def _lane_trainer() -> Any:
    try:
        from orchestrator.lanes.trainer import LaneTrainer
    except (ImportError, AttributeError) as error:
        log.warning("each lane is a trainer of its own, since this Ray lacks what groups of them need: %s", error)
        return None
    return LaneTrainer
