"""Resident memory of a sweep, by the number of lanes and of trials that a lane packs.

    python -m benchmarks.sweep_memory

Runs real sweeps and reads the resident memory of all their processes twice a second (``/proc/PID/smaps_rollup``,
Linux only). A line per sweep has the largest sums over processes at any moment: of the ``lanes``, of the ``proxies``
that Tune runs, of all ``other`` processes (the driver, Ray), and of ``all``:

- ``pss_bytes``: proportional set size; a page that two processes share counts half for each.
- ``private_bytes``: pages of one process alone, which would be freed if it ended.
- ``processes``: their number.

The last line has ``bytes_per_further_lane`` (slope of the lanes' PSS), ``bytes_per_further_packed_trial`` (slope of
one lane's private bytes), and ``further_lane_over_first``, the cost of a further lane as a fraction of the first one's.
"""

from __future__ import annotations

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

from benchmarks._common import argument_parser, emit, scratch_folder
from benchmarks._fixed_trials import METHODS, write_comparison, write_sweep_file

INTERVAL_S = 0.5
PROCESS_TITLES = {"lanes": "RayTrainWorker", "proxies": "ResourceTrainable"}
"""Part of the title that Ray gives a process, by the process's kind."""
FIELDS = {"Pss:": "pss", "Private_Clean:": "private", "Private_Dirty:": "private"}
"""The sum to which each field of smaps_rollup is added."""


@dataclass
class MemoryPeaks:
    """The largest sums over the processes of a kind at one moment: bytes, and the number of processes."""

    pss: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    private: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    processes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def sample(self, root: psutil.Process) -> None:
        """Measure a process and its descendants now, and update the peaks."""
        totals: dict[str, dict[str, int]] = {name: defaultdict(int) for name in ("pss", "private", "processes")}
        for process in _process_tree(root):
            for name, value in {**resident_bytes(process.pid), "processes": 1}.items():
                for kind in ("all", _kind(process)):
                    totals[name][kind] += value
        for name, sums in totals.items():
            peaks: dict[str, int] = getattr(self, name)
            for kind, value in sums.items():
                peaks[kind] = max(peaks[kind], value)


def main() -> None:
    """Run sweeps with several lanes and no packs, then with packs on one lane."""
    parser = argument_parser(__doc__)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2], help="numbers of lanes (default: %(default)s)")
    parser.add_argument(
        "--packs", type=int, nargs="+", default=[1, 2, 4, 8], help="trials per pack, on one lane (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of every trial (default: %(default)s)")
    arguments = parser.parse_args()
    shapes = dict.fromkeys([*((lanes, 1) for lanes in arguments.lanes), *((1, pack) for pack in arguments.packs)])
    peaks = {shape: measure_sweep(*shape, arguments.steps) for shape in shapes}
    lane_bytes = {lanes: peaks[lanes, 1].pss["lanes"] for lanes in arguments.lanes}
    pack_bytes = {pack: peaks[1, pack].private["lanes"] for pack in arguments.packs}
    bytes_per_lane = slope(lane_bytes)
    emit(
        benchmark="sweep_memory",
        bytes_per_further_lane=bytes_per_lane,
        bytes_per_further_packed_trial=slope(pack_bytes),
        further_lane_over_first=bytes_per_lane / min(lane_bytes.values()),
    )


def measure_sweep(lanes: int, pack: int, steps: int) -> MemoryPeaks:
    """Run a sweep with at least two full packs per lane, print its line, and return its peaks.

    Raises:
        RuntimeError: if the sweep fails.
    """
    trials = math.ceil(2 * lanes * pack / len(METHODS)) * len(METHODS)
    with scratch_folder() as folder:
        file = write_sweep_file(write_comparison(folder, trials, steps), folder)
        config = yaml.safe_load(file.read_text())
        config["lanes"] = {"min": lanes, "max": lanes, "pack": pack, "cpus": min(1.0, _cores() / lanes), "gpus": 0}
        file.write_text(yaml.safe_dump(config))
        peaks = _run_and_sample([str(Path(sys.executable).with_name("peft-sweep")), "run", str(file), "--json"], folder)
    emit(
        benchmark="sweep_memory",
        lanes=lanes,
        pack=pack,
        trials=trials,
        pss_bytes=dict(peaks.pss),
        private_bytes=dict(peaks.private),
        processes=dict(peaks.processes),
    )
    return peaks


def slope(values: Mapping[int, float]) -> float:
    """Return the growth of a value with its key, by least squares; 0 for a single key."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(list(values), list(values.values())).slope


def _run_and_sample(command: list[str], folder: Path) -> MemoryPeaks:
    peaks = MemoryPeaks()
    with (folder / "stderr.txt").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peaks.sample(root)
            time.sleep(INTERVAL_S)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{_read_end(stderr.name)}")
    return peaks


def _read_end(file: str) -> str:
    return Path(file).read_text()[-4000:]


def _process_tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(pid: int) -> dict[str, int]:
    """Return ``pss`` and ``private`` of a process in bytes; 0 if the process has ended."""
    sizes = {"pss": 0, "private": 0}
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return sizes
    for line in lines:
        name, *values = line.split()
        if name in FIELDS:
            sizes[FIELDS[name]] += int(values[0]) * 1024
    return sizes


def _kind(process: psutil.Process) -> str:
    """Return the kind of a process, by the title that Ray gives its workers."""
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return "other"
    return next((kind for kind, name in PROCESS_TITLES.items() if name in title), "other")


def _cores() -> int:
    return len(psutil.Process().cpu_affinity() or [])


if __name__ == "__main__":
    main()
