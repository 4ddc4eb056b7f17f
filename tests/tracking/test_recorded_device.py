"""The device that predictions were recorded on, and what a check on another one says."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from orchestrator.cli.output.models import print_verification
from orchestrator.engine import gpu_identity as identity_module
from orchestrator.engine.gpu_identity import gpu_identity
from orchestrator.tracking import verify as verify_module
from orchestrator.tracking.bundle import Environment
from orchestrator.tracking.verify import (
    GPU_TOLERANCE,
    TOLERANCE,
    Verification,
    device_difference,
    environment_differences,
)

H100: dict[str, str] = {"gpu": "NVIDIA H100", "cuda": "13.0", "cublas": "13.0.2"}
CPU, UNNAMED = Environment.here(1), Environment.here(1, "cuda")
ON_H100 = Environment.here(1, "cuda", **H100)


@pytest.mark.parametrize(
    ("recorded", "current", "difference"),
    [
        (CPU, CPU, ""),
        (ON_H100, ON_H100, ""),
        (ON_H100, CPU, "cpu here, NVIDIA H100 when recorded"),
        (
            ON_H100,
            Environment.here(1, "cuda", **{**H100, "gpu": "NVIDIA A100"}),
            "NVIDIA A100 here, NVIDIA H100 when recorded",
        ),
        (UNNAMED, ON_H100, ""),  # an earlier release did not record the name
        (UNNAMED, CPU, "cpu here, cuda when recorded"),
    ],
)
def test_recorded_device_differs_from_this_one(recorded: Environment, current: Environment, difference: str) -> None:
    assert device_difference(recorded, current) == difference


def test_recorded_device_is_read_from_bundles_without_a_name() -> None:
    old = {"threads": 4, "torch": "2.10", "cpu": "AVX2", "device": "cuda"}
    assert Environment.model_validate(old).gpu == ""
    assert Environment.model_validate(ON_H100.model_dump()) == ON_H100


def test_recorded_device_notes_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Environment.here(1, "cuda", **{**H100, "cublas": "13.1.0"})
    monkeypatch.setattr(verify_module, "environment_of", lambda _: here)
    backbone = SimpleNamespace(compute_dtype="bfloat16")
    bundle: Any = SimpleNamespace(environment=ON_H100, backbone=backbone)
    assert environment_differences(bundle) == ["cuBLAS: 13.1.0 here, 13.0.2 when recorded"]


def test_verification_tolerates_more_on_a_gpu() -> None:
    close = verification(largest_difference=5e-4)
    assert not close.ok
    assert verification(largest_difference=5e-4, tolerance=GPU_TOLERANCE).ok
    assert not verification(largest_difference=2 * GPU_TOLERANCE, tolerance=GPU_TOLERANCE).ok
    assert close.tolerance == TOLERANCE


def test_verification_that_fails_names_the_other_device(capsys: pytest.CaptureFixture[str]) -> None:
    line = "another device rounds and adds in other ways"
    print_verification(verification(largest_difference=1.0, other_device="cpu here, NVIDIA H100 when recorded"))
    assert line in capsys.readouterr().out
    print_verification(verification(largest_difference=0.0, other_device="cpu here, NVIDIA H100 when recorded"))
    print_verification(verification(largest_difference=1.0))
    assert line not in capsys.readouterr().out


def test_gpu_identity_names_gpu_cuda_and_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package != "nvidia-cublas-cu12":
            raise PackageNotFoundError(package)
        return "12.8.4"

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(identity_module, "version", version)
    expected = {"gpu": "GPU 1", "cuda": "12.8", "cublas": "12.8.4"}
    assert gpu_identity(torch.device("cuda", 1)) == expected
    assert Environment.here(1, "cuda", **expected).gpu == "GPU 1"
    assert gpu_identity(torch.device("cpu")) == {}


def verification(**changes: Any) -> Verification:
    fields: dict[str, Any] = {"reference": "mail", "version": 1, "rows": 3, "score_recorded": 0.5, "score_now": 0.5}
    return Verification(**{**fields, **changes})
