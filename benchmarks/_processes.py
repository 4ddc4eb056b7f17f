"""The processes of a sweep, by kind."""

from __future__ import annotations

import psutil

KINDS = {
    "lanes": "RayTrainWorker",
    "broker": "ray::Broker",
    "controller": "ray::TrainController",
    "proxies": "ray::ResourceTrainable",
    "driver": "-m orchestrator.cli",
    "ray": "/ray/",
}
"""Part of the command line of each kind of process; the first that is found counts."""


def kind_of(process: psutil.Process) -> str:
    """Return the kind of a process, ``other`` for one of no kind above.

    Raises:
        psutil.Error: if it has ended.
    """
    command = " ".join(process.cmdline())
    return next((kind for kind, part in KINDS.items() if part in command), "other")
