"""The launcher file, by Ray's own schema and Ray's own preparation of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from .documents import ROOT, blocks

FILE = ROOT / "cluster.yaml"
DOCUMENT = ROOT / "docs" / "cluster.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray.*")  # Ray's own imports


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    ready: dict[str, Any] = prepare_config(config)
    validate_config(ready)
    return ready


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    types = prepared(config)["available_node_types"]
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in types.items()} == {
        "head": (0, 0),
        "gpu": (0, 8),
    }


def test_ray_refuses_what_it_does_not_know(config: dict[str, Any]) -> None:
    import jsonschema

    config["available_node_types"]["gpu"]["instances"] = 8
    with pytest.raises(jsonschema.ValidationError, match="instances"):
        prepared(config)


def test_lanes_stay_off_the_head(config: dict[str, Any]) -> None:
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in config["head_start_ray_commands"])


def test_every_node_asks_for_the_token(config: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        (start,) = [line for line in config[f"{role}_start_ray_commands"] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start
    assert "~/.ray/auth_token" in config["file_mounts"]


Policy = list[dict[str, Any]]


@pytest.fixture
def policies() -> dict[str, Policy]:
    """Return the statements of the document's three JSON blocks, which are the files that its commands name."""
    text = DOCUMENT.read_text()
    documents = [json.loads(block) for block in blocks(DOCUMENT, "json")]
    names = ("trust", "head", "worker")
    assert [text.index(f"`{name}.json`") for name in names] == sorted(text.index(f"`{name}.json`") for name in names)
    assert [policy["Version"] for policy in documents] == ["2012-10-17"] * len(names)
    return {name: policy["Statement"] for name, policy in zip(names, documents, strict=True)}


def actions(policy: Policy) -> set[str]:
    return {action for statement in policy for action in statement["Action"]}


def resources(policy: Policy, service: str) -> set[str]:
    return {
        resource
        for statement in policy
        if any(action.startswith(f"{service}:") for action in statement["Action"])
        for resource in statement["Resource"]
    }


def test_cluster_file_gives_head_and_workers_profiles_of_their_own(config: dict[str, Any]) -> None:
    profiles = {
        name: node_type["node_config"]["IamInstanceProfile"]
        for name, node_type in config["available_node_types"].items()
    }
    assert profiles == {"head": {"Name": "peft-sweep-head"}, "gpu": {"Name": "peft-sweep-worker"}}


def test_cluster_policy_lets_ec2_assume_the_roles(policies: dict[str, Policy]) -> None:
    (statement,) = policies["trust"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": ["sts:AssumeRole"],
    }


def test_cluster_policy_of_the_head_starts_workers_with_their_profile(
    config: dict[str, Any], policies: dict[str, Policy]
) -> None:
    from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME

    head = policies["head"]
    assert actions(head) >= {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:Describe*"}
    (pass_role,) = [statement for statement in head if "iam:PassRole" in statement["Action"]]
    profile = config["available_node_types"]["gpu"]["node_config"]["IamInstanceProfile"]["Name"]
    assert pass_role["Resource"] == [f"arn:aws:iam::*:role/{profile}"]
    (terminate,) = [statement for statement in head if "ec2:TerminateInstances" in statement["Action"]]
    assert terminate["Condition"] == {
        "StringEquals": {f"ec2:ResourceTag/{TAG_RAY_CLUSTER_NAME}": config["cluster_name"]}
    }


def test_cluster_policy_of_workers_reaches_the_bucket_only(policies: dict[str, Policy]) -> None:
    worker = policies["worker"]
    assert {action.partition(":")[0] for action in actions(worker)} == {"s3"}
    assert actions(worker) >= {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    bucket = {"arn:aws:s3:::CHANGE-bucket", "arn:aws:s3:::CHANGE-bucket/*"}
    assert resources(worker, "s3") == resources(policies["head"], "s3") == bucket
    assert "s3://CHANGE-bucket/" in FILE.read_text()


def test_cluster_file_pins_the_installation(config: dict[str, Any]) -> None:
    assert any("--constraint ~/peft-sweep/constraints.txt" in line for line in config["setup_commands"])


def test_cluster_file_names_what_ray_up_needs_locally() -> None:
    """Ray's AWS provider imports boto3, and ``ray up`` the extra packages of ``ray[default]``."""
    command = 'pip install --constraint constraints.txt "ray[default]" boto3'
    assert command in FILE.read_text()
    assert f"{command}\n" in blocks(DOCUMENT, "sh")


def test_cluster_file_setup_waits_for_the_lock_of_apt(config: dict[str, Any]) -> None:
    """Right after its first start, an Ubuntu machine updates itself and holds the locks of apt for minutes."""
    calls = [call for line in config["setup_commands"] for call in re.split(r"&&|\|\|", line) if "apt-get" in call]
    assert calls
    for call in calls:
        assert "DPkg::Lock::Timeout=300" in call or "timeout 300 sh -c 'until sudo apt-get update" in call
        assert " install " not in call or "DEBIAN_FRONTEND=noninteractive" in call  # nobody answers its questions


def test_cluster_file_setup_uses_the_tested_release_of_python(config: dict[str, Any]) -> None:
    (command,) = [line for line in config["setup_commands"] if " ~/venv" in line]
    version = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"uv venv --quiet --seed --managed-python --python {version} ~/venv" in command
    assert not any("python3." in line for line in config["setup_commands"])


def test_cluster_file_commands_are_valid_shell(config: dict[str, Any]) -> None:
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for line in config[key]:
            check = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
            assert check.returncode == 0, (line, check.stderr)


def test_spot_notice_drains_the_node(config: dict[str, Any], tmp_path: Path) -> None:
    """The metadata service has no notice at the first two requests; curl and ray are scripts here."""
    (line,) = [line for line in config["worker_start_ray_commands"] if "drain-node" in line]
    scripts = {
        "curl": 'case "$*" in *PUT*) echo secret;; *"token: secret"*) echo >> asked; test $(wc -l < asked) = 3;; esac',
        "sleep": "true",
        "ray": 'echo "$RAY_AUTH_MODE $*" > drained.part; mv drained.part drained',
    }
    for name, body in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "RAY_HEAD_IP": "10.0.0.1"}
    subprocess.run(["bash", "-c", f"{line} wait"], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert (tmp_path / "drained").read_text().split() == [
        "token",
        "drain-node",
        "--address=10.0.0.1:6379",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=spot",
        "--deadline-remaining-seconds=110",
    ]
    assert (tmp_path / "spot.log").read_text() == ""


def test_cluster_file_and_document_name_the_driver_version() -> None:
    for file in (FILE, DOCUMENT):
        assert "the NVIDIA driver 580 or newer" in " ".join(file.read_text().replace("#", " ").split()), file


def test_cluster_file_mounts_suffice_to_build_the_wheel(config: dict[str, Any], tmp_path: Path) -> None:
    """Build from exactly the files that a node has, and compare the wheel with the sources here."""
    node = tmp_path / "node"
    mount(config, node)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    build = subprocess.run(command, cwd=node, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.partition("/")[2] for name in archive.namelist()} - files
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    sources = {
        file.relative_to(ROOT).as_posix()
        for package in packages
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert files == sources | {"orchestrator/demo.yaml"}
    assert files >= {f"{package}/py.typed" for package in ("orchestrator", "methods", "search_spaces")}
    assert files >= {
        "orchestrator/engine/neutral.txt",
        "orchestrator/report/charts.css",
        "orchestrator/report/page.css",
        "orchestrator/report/page.html.j2",
    }
    assert metadata >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}


def mount(config: dict[str, Any], node: Path) -> None:
    """Copy to a folder what cluster.yaml mounts at ``~/peft-sweep``, and nothing else.

    Args:
        config: the launcher configuration.
        node: an empty or missing folder, which stands for ``~/peft-sweep`` of a node.
    """
    assert config["rsync_exclude"] == ["**/__pycache__"]
    for remote, local in config["file_mounts"].items():
        if not remote.startswith("~/peft-sweep/"):
            continue
        source, target = ROOT / local, node / remote.removeprefix("~/peft-sweep/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
