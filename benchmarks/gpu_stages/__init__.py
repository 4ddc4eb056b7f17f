"""The stages of ``python -m benchmarks.gpu``, each a function in a module of this folder.

``supervisor`` starts a worker process and reads what it reports; ``worker`` runs the stages in that process; ``report``
is what a stage writes to, and ``lab`` the models, rows and trials that stages have in common.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: name on the command line.
        limit_s: seconds after which it is ended.
        function: ``MODULE:FUNCTION``, called with a lab and a report.
        own_process: whether no other stage may run in its process.
    """

    name: str
    limit_s: float
    function: str
    own_process: bool = False


STAGES = (
    Stage("environment", 45, f"{__name__}.environment:environment"),
    Stage("tests", 80, f"{__name__}.environment:gpu_tests"),
    Stage("backbone", 75, f"{__name__}.weights:one_billion"),
    Stage("fingerprint", 45, f"{__name__}.weights:eight_billion"),
    Stage("methods", 60, f"{__name__}.methods_in_packs:methods_in_packs"),
    Stage("steps", 120, f"{__name__}.steps:steps"),
    Stage("packs", 60, f"{__name__}.packs:packs"),
    Stage("out_of_memory", 30, f"{__name__}.out_of_memory:out_of_memory"),
    Stage("scoring", 45, f"{__name__}.scoring:scoring"),
    Stage("resume", 20, f"{__name__}.trials:resume"),
    Stage("optimizer_pages", 20, f"{__name__}.trials:optimizer_pages"),
    Stage("device_assert", 100, f"{__name__}.device_assert:device_assert", own_process=True),
)
"""All stages in their order. Their limits add up to more than the whole may take: few stages come near theirs."""
