"""What Ray Train runs in every worker, light to import for whoever only names it."""

from __future__ import annotations

import gc
from typing import Any


def lane_loop(config: dict[str, Any]) -> None:
    """Join, take, train, answer, until told to retire.

    Args:
        config: ``broker``, the actor; ``first``, the number of this group's first lane; ``threads`` per worker.
            Each worker is a lane, unless a process group makes all of them one.
    """
    _import_all()
    import torch
    from ray import train

    from orchestrator.engine.ranks import Ranks
    from orchestrator.lanes.worker import Worker

    torch.set_num_threads(config["threads"])
    ranks = Ranks.here()
    lane = config["first"] + (train.get_context().get_world_rank() if ranks.size == 1 else 0)
    Worker(lane, config["broker"], ranks).live()


def _import_all() -> None:
    """Import what the first trial would wait for, while the driver still tokenizes and quantizes.

    Hundreds of thousands of objects come and all stay: that nobody looks among them for garbage saves a tenth of the
    time now, and a third of a second whenever all garbage is collected later.
    """
    gc.disable()
    import methods
    import orchestrator.lanes.worker  # noqa: F401

    # peft comes with them, after bitsandbytes: it would import that with torch's compiler
    for name in methods.names():
        methods.get(name)
    gc.freeze()
    gc.enable()
