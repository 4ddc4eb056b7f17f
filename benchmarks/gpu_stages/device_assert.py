"""A token id beyond the vocabulary: the device asserts, every later call in the process fails, and a new one works.

    python -m benchmarks.gpu_stages.device_assert DEVICE SMALL FOLDER FIRST_ID

is the process of a lane: it trains, and ends with exit code 0 if its trial went well, 1 if the trial failed and the
device still works, and 2 if the device is lost.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path

from benchmarks.gpu_stages.lab import FEW_BLOCKS, Lab, take_step
from benchmarks.gpu_stages.report import Report
from benchmarks.gpu_stages.supervisor import ROOT
from orchestrator.engine.device_errors import breaks_device

BEYOND = 10**6
TRAINED, TRIAL_FAILED, DEVICE_LOST = 0, 1, 2


def device_assert(lab: Lab, report: Report) -> None:
    """Start a process that meets such a token, and then one that does not."""
    lab.file(FEW_BLOCKS)
    expected = DEVICE_LOST if lab.cuda else TRIAL_FAILED
    code, seconds = _run(lab, BEYOND, report)
    report.figure("exit_code_with_the_token", code)
    report.figure("seconds_with_the_token", seconds)
    report.check("the process ends by itself", code == expected, f"exit code {code}, expected {expected}")
    code, seconds = _run(lab, 3, report)
    report.figure("exit_code_afterwards", code)
    report.figure("seconds_afterwards", seconds)
    report.check("a new process trains", code == TRAINED, f"exit code {code}")
    if not lab.cuda:
        report.skip("the loss of the device", "needs a GPU: on a processor the trial alone fails")


def _run(lab: Lab, first_id: int, report: Report) -> tuple[int, float]:
    arguments = [lab.device.type, str(int(lab.small)), str(lab.folder), str(first_id)]
    command, limit = [sys.executable, "-m", __name__, *arguments], max(1, report.seconds_left())
    begin = time.perf_counter()
    return subprocess.run(command, cwd=ROOT, timeout=limit, check=False).returncode, time.perf_counter() - begin


def main() -> int:
    """Train and return the exit code."""
    warnings.simplefilter("ignore")
    device, small, folder, first_id = sys.argv[1:]
    lab = Lab(device, small == "1", Path(folder))
    backbone = lab.backbone(FEW_BLOCKS)
    run = lab.trial("lora", backbone, lab.dataset(backbone, 8, 16, int(first_id)), batch_size=4)
    try:
        take_step([run])
        lab.synchronize()
    except Exception as error:
        cause = error.__cause__ or error
        print(f"{type(cause).__name__}: {cause}", file=sys.stderr)
        return DEVICE_LOST if breaks_device(cause, lab.device) else TRIAL_FAILED  # as a lane finds out
    return TRAINED


if __name__ == "__main__":
    sys.exit(main())
