"""Lanes of one worker as Ray Train's replicas.

A replica that dies is replaced alone, while the others continue. Ray Train has this as ``Backend.has_replica_groups``,
an internal hook, which is why it is used in this file and nowhere else. Ray Train's controller imports this file and
does not need torch, so the file does not import it.
"""

from __future__ import annotations

from ray.train.backend import Backend, BackendConfig


class LaneBackend(Backend):
    """A backend without a process group: lanes do not communicate with one another."""

    has_replica_groups = True


class LaneBackendConfig(BackendConfig):
    """Configuration that chooses :class:`LaneBackend`."""

    @property
    def backend_cls(self) -> type[LaneBackend]:
        """The class of the backend, which Ray Train reads."""
        return LaneBackend
