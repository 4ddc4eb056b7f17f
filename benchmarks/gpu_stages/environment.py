"""Versions, device and driver; and the tests that need a GPU."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import psutil
import torch

from benchmarks.gpu_stages.lab import Lab
from benchmarks.gpu_stages.report import Report
from benchmarks.gpu_stages.supervisor import ROOT

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "pyarrow", "pydantic", "greenlet")
GPU_TESTS = (
    "tests/engine/test_on_gpu.py",
    "tests/engine/test_all_reduce_gradients_gpu.py",
    "tests/engine/test_optimizers.py",
)


def environment(lab: Lab, report: Report) -> None:
    """Report what the figures depend on, and ask bitsandbytes whether it works."""
    report.figure("python", sys.version.split()[0])
    for package in PACKAGES:
        try:
            report.figure(package, version(package))
        except PackageNotFoundError:
            report.check("all packages are installed", ok=False, detail=package)
    report.figure("processor_cores", psutil.cpu_count() or 1)
    report.figure("processor_memory_bytes", psutil.virtual_memory().total)
    if lab.require_gpu(report, "device and driver"):
        properties = torch.cuda.get_device_properties(lab.device)
        report.figure("device", properties.name)
        report.figure("device_memory_bytes", properties.total_memory)
        report.figure("compute_capability", f"{properties.major}.{properties.minor}")
        report.figure("cuda", torch.version.cuda)
        report.figure("cudnn", torch.backends.cudnn.version())
        report.figure("driver", _driver())
        report.figure("bf16", torch.cuda.is_bf16_supported(including_emulation=False))
    command = [sys.executable, "-m", "bitsandbytes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(1, report.seconds_left()), check=False)
    report.figure("bitsandbytes_exit_code", done.returncode)
    if lab.cuda:
        report.check("python -m bitsandbytes succeeds", done.returncode == 0, _last_line(done.stdout + done.stderr))


def gpu_tests(lab: Lab, report: Report) -> None:
    """Run the tests that are marked ``gpu``."""
    if not find_spec("pytest"):
        report.skip("tests marked gpu", "pytest is not installed")
        return
    # None of the options in pyproject.toml: they need plugins that may not be installed.
    options = ["-q", "-rs", "-m", "gpu", "-c", "/dev/null", "--rootdir", str(ROOT), "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", "-W", "ignore", *GPU_TESTS]
    limit = max(1, report.seconds_left())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    report.figure("tests", _last_line(done.stdout))
    sys.stderr.write(done.stdout + done.stderr)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    report.check("tests marked gpu pass", done.returncode == 0, " | ".join(failed) or _last_line(done.stderr))
    if not lab.cuda:
        report.skip("what the tests show", "needs a GPU: each of them is skipped")


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown: nvidia-smi does not answer"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip("= ")
