"""What ``peft-sweep doctor`` finds, without Ray."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

from orchestrator.common import package_versions
from orchestrator.lanes import cluster
from orchestrator.sweep import checks
from orchestrator.sweep.checks import check_encoding, check_packages, check_space, check_storage, check_tracking

Usage = namedtuple("Usage", "total used free")


def test_storage_check_writes_nothing_that_stays(tmp_path: Path) -> None:
    assert check_storage(str(tmp_path / "new" / "sweeps")).result == "ok"
    assert list(tmp_path.iterdir()) == []


def test_storage_check_tells_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for storage in (str(tmp_path / "file"), "gopher://place/folder"):
        check = check_storage(storage)
        assert (check.result, storage in check.detail, bool(check.mend)) == ("fault", True, True), check


def test_tracking_check_makes_no_database(tmp_path: Path) -> None:
    assert check_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}").result == "ok"
    assert list(tmp_path.iterdir()) == []
    missing = check_tracking(f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")
    assert (missing.result, "there is no folder" in missing.detail) == ("fault", True)


def test_tracking_check_hides_the_password_of_a_server_that_is_away() -> None:
    check = check_tracking("http://ada:secret@127.0.0.1:9")
    assert check.result == "fault"
    assert "secret" not in f"{check.detail} {check.mend}"


def test_tracking_check_tells_of_a_database_that_is_away_at_once() -> None:
    began = time.monotonic()
    check = check_tracking("postgresql+psycopg://ada:secret@127.0.0.1:9/mlflow")
    assert time.monotonic() - began < 60  # MLflow alone tries for 100 s
    assert (check.result, "start the database" in check.mend) == ("fault", True), check
    assert "connection to server at" in check.detail
    assert "secret" not in f"{check.detail} {check.mend}"


def test_packages_check_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_packages().result == "ok"
    for module in (package_versions, checks):
        monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package"))
    check = check_packages()
    assert (check.result, check.detail.endswith("missing: no-such-package")) == ("fault", True)


def test_space_check_warns_below_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    for free, result in ((20e9, "ok"), (1e9, "warning")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: Usage(1e12, 0, free))
        assert check_space(str(tmp_path)).result == result


def test_temporary_folder_check_refuses_a_long_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, result in (("/tmp", "ok"), ("/" + "x" * 80, "fault")):  # nothing is written
        monkeypatch.setattr(tempfile, "gettempdir", lambda folder=folder: folder)
        assert checks.check_temporary_folder().result == result


def test_encoding_check_warns_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, result in (("utf-8", "ok"), ("ascii", "warning")):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert check_encoding().result == result


def test_check_that_raises_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> checks.Check:
        raise OSError("the driver is broken")

    monkeypatch.setattr(checks, "check_gpus", broken)
    monkeypatch.setattr(checks, "check_ray", lambda address: checks.Check("ray", "ok", ""))
    found = {check.name: check for check in checks.checks(str(tmp_path), f"sqlite:///{tmp_path}/mlflow.db", None)}
    assert found["gpu"].result == "fault"
    assert "the driver is broken" in found["gpu"].detail
    assert set(found) == {"packages", "gpu", "ray", "storage", "mlflow", "space", "memory", "paths", "encoding"}


def test_ray_check_sums_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.Cluster, "__enter__", lambda self: self)
    for method in ("__exit__", "wait_until_connected", "disconnect"):
        monkeypatch.setattr(cluster.Cluster, method, lambda self, *error: None)
    nodes = {"a": {"CPU": 8.0, "GPU": 2.0}, "b": {"CPU": 4.0}}
    monkeypatch.setattr(cluster, "node_resources", lambda: nodes)
    check = checks.check_ray(None)
    assert (check.result, check.detail) == ("ok", "this machine: nodes 2, CPU 12, GPU 2")
