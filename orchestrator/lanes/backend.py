"""Lanes of one worker, as Ray Train sees them: replicas of one another.

A replica that dies is replaced alone and the others work on. Ray Train has this as ``Backend.has_replica_groups``, an
internal hook, which is why it stands in this file and nowhere else. Ray Train's controller reads this file, and has no
use for torch.
"""

from __future__ import annotations

from ray.train.backend import Backend, BackendConfig


class LaneBackend(Backend):
    """No process group: lanes do not talk to one another."""

    has_replica_groups = True


class LaneBackendConfig(BackendConfig):
    """Chooses :class:`LaneBackend`."""

    @property
    def backend_cls(self) -> type[LaneBackend]:
        """As Ray Train asks for it."""
        return LaneBackend
