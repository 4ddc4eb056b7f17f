"""Run stages in this process and report to the supervisor: ``DEVICE SMALL FOLDER END STAGE...``, stages in JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import IO

from benchmarks.gpu_stages import Stage
from benchmarks.gpu_stages.lab import Lab
from benchmarks.gpu_stages.report import Report

GRACE_S = 3.0
"""Seconds before a stage's limit at which it should begin nothing new."""
KEPT_LINES = 3


def main() -> None:
    """Run every stage that is named."""
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the reports
    warnings.simplefilter("ignore")
    device, small, folder, end, *stages = sys.argv[1:]
    lab = Lab(device, small == "1", Path(folder))
    for stage in stages:
        run(Stage(**json.loads(stage)), lab, stream, float(end))


def run(stage: Stage, lab: Lab, stream: IO[str], end: float) -> None:
    """Run one stage; an error fails it, and an error that the device does not survive ends the process."""
    report = Report(stream, min(stage.limit_s, end - time.monotonic()) - GRACE_S)
    report.write("begin", stage.name, None)
    module, _, function = stage.function.partition(":")
    try:
        getattr(import_module(module), function)(lab, report)
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        report.check(type(error).__name__, ok=False, detail=" ".join(lines[:KEPT_LINES]))
        del error
    gc.collect()
    lab.synchronize()  # raises where the device is lost, so that the next stage gets a new process
    report.write("end", stage.name, None)


if __name__ == "__main__":
    main()
