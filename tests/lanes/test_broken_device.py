"""A whole sweep in which the device of a lane's process breaks twice, and with it every later call of the process."""

import threading
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.runner import new_sweep_name, run_sweep

from ..small_sweep import NOISE, ends, events, write_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
BREAK = '''
import threading
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

CALLS = []


class StickyError(TorchDispatchMode):
    """A device whose every call fails from now on."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "profiler":  # asks no device
            return function(*args, **(kwargs or {}))
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def break_device() -> None:
    """In a lane, break the device at the twentieth call; twice in a sweep."""
    CALLS.append("TrainingThread" in threading.current_thread().name)
    if sum(CALLS) != 20:
        return
    for number in range(2):
        marker = Path(FOLDER) / f"broken-{number}"
        if not marker.exists():
            marker.touch()
            StickyError().__enter__()
            return
'''
pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]


def test_sweep_survives_a_device_that_breaks_twice(tmp_path: Path) -> None:
    plugin = EXAMPLE.read_text().replace(
        '"""Multiplies the residual', 'break_device()\n        """Multiplies the residual'
    )
    (tmp_path / "my_method.py").write_text(plugin + BREAK.replace("FOLDER", repr(str(tmp_path))))
    config = write_sweep(
        tmp_path,
        plugins=["my_method.py"],
        methods=["my_method"],
        lanes={"max": 1, "pack": 2},
        budget={"trials": 4},
        selection={"seeds": 1},
    )
    plan = make_plan(load_config(config))
    with Cluster() as cluster:
        sweep = new_sweep_name(plan.config.name)
        outcome = run_sweep(plan, sweep=sweep, cluster=cluster, watch=lambda _: None, stop=threading.Event())
    assert (tmp_path / "broken-1").exists(), "it broke, came back, and broke again"
    assert set(ends(events(outcome.folder / "journal.jsonl")).values()) <= {"complete", "pruned"}
    log = (outcome.folder / "sweep.log").read_text()
    assert "cpu cannot be used by this process any more: AcceleratorError: CUDA error: device-side assert" in log
