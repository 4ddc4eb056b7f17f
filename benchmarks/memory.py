"""What a sweep has in memory, by the number of lanes and of trials that a lane packs.

Real sweeps, watched from outside: twice a second the kernel is asked what every process of the sweep has resident
(``/proc/PID/smaps_rollup``). ``shared`` memory counts in proportion (PSS), so that what two lanes map counts once, half
for each; ``private`` is what would come free if the process ended. A line has the largest sums at any moment, in bytes:
of the lanes, of the proxies that Tune runs, and of everything, Ray included. The last line has what one more lane and
one more packed trial cost, and the ratio of a further lane to the first.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from benchmarks._common import emit, scratch
from benchmarks._fixed_trials import METHODS, comparison, sweep_file

INTERVAL = 0.5
KINDS = {"lanes": "RayTrainWorker", "proxies": "ResourceTrainable"}
FIELDS = {"Pss:": "pss", "Private_Clean:": "private", "Private_Dirty:": "private"}
"""What a line of smaps_rollup adds to."""


@dataclass
class Watched:
    """The largest sums over processes of a kind that were seen at one moment, in bytes."""

    pss: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    private: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    processes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def look(self, root: psutil.Process) -> None:
        """Add up a process and all that came from it."""
        now: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("pss", "private", "processes")}
        for process in _family(root):
            for name, value in {**resident(process.pid), "processes": 1}.items():
                for kind in ("all", _kind(process)):
                    now[name][kind] += value
        for name, sums in now.items():
            kept: dict[str, int] = getattr(self, name)
            for kind, value in sums.items():
                kept[kind] = max(kept[kind], value)


def main() -> None:
    """Lanes without packs, then packs on one lane."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    shapes = dict.fromkeys([*((lanes, 1) for lanes in asked.lanes), *((1, pack) for pack in asked.packs)])
    found = {shape: measured(*shape, asked.steps) for shape in shapes}
    lanes = {lanes: found[lanes, 1].pss["lanes"] for lanes in asked.lanes}
    packs = {pack: found[1, pack].private["lanes"] for pack in asked.packs}
    more = slope(lanes)
    emit(
        benchmark="memory",
        bytes_per_further_lane=more,
        bytes_per_further_packed_trial=slope(packs),
        ratio=more / min(lanes.values()),
    )


def measured(lanes: int, pack: int, steps: int) -> Watched:
    """A sweep in which every lane has full packs twice, or more often.

    Raises:
        RuntimeError: if it fails.
    """
    trials = math.ceil(2 * lanes * pack / len(METHODS)) * len(METHODS)
    with scratch() as folder:
        file = sweep_file(comparison(folder, trials, steps), folder)
        config = yaml.safe_load(file.read_text())
        config["lanes"] = {"min": lanes, "max": lanes, "pack": pack, "cpus": min(1.0, _cores() / lanes), "gpus": 0}
        file.write_text(yaml.safe_dump(config))
        watched = _watch([str(Path(sys.executable).with_name("peft-sweep")), "run", str(file), "--json"], folder)
    emit(
        benchmark="memory",
        lanes=lanes,
        pack=pack,
        trials=trials,
        pss=dict(watched.pss),
        private=dict(watched.private),
        processes=dict(watched.processes),
    )
    return watched


def slope(values: Mapping[int, float]) -> float:
    """By how much a value grows with its key, by least squares; 0 for one key alone."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(list(values), list(values.values())).slope


def _watch(command: list[str], folder: Path) -> Watched:
    watched = Watched()
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            watched.look(root)
            time.sleep(INTERVAL)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{_end(said.name)}")
    return watched


def _end(file: str) -> str:
    return Path(file).read_text()[-4000:]


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident(pid: int) -> dict[str, int]:
    """``pss`` and ``private`` of a process in bytes; 0 where it has ended meanwhile."""
    found = {"pss": 0, "private": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name, *values = line.split()
        if name in FIELDS:
            found[FIELDS[name]] += int(values[0]) * 1024
    return found


def _kind(process: psutil.Process) -> str:
    """By the title that Ray gives its workers."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return "others"
    return next((kind for kind, name in KINDS.items() if name in title), "others")


def _cores() -> int:
    return len(psutil.Process().cpu_affinity() or [])


if __name__ == "__main__":
    main()
