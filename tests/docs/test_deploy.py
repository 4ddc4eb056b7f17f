"""The files of deploy/, by the schemas and linters of those that read them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.config import load_config

from .documents import ROOT, blocks

DEPLOY = ROOT / "deploy"
DOCUMENT = ROOT / "docs" / "cluster.md"
SCHEMA = ROOT / "tests" / "data" / "kuberay" / "rayjob.schema.json"

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray.*")  # Ray's own imports


def mounted() -> set[str]:
    """Return what cluster.yaml gives to a node's build of the wheel."""
    mounts = yaml.safe_load((ROOT / "cluster.yaml").read_text())["file_mounts"]
    return {local.removeprefix("./") for remote, local in mounts.items() if remote.startswith("~/peft-sweep/")}


@pytest.fixture
def rayjob() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest's two parts: the configuration's ConfigMap, and the job."""
    config_map, job = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    return config_map, job


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_rayjob_is_valid_by_the_schema_of_kuberay(rayjob: tuple[Any, dict[str, Any]], validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(rayjob[1])] == []


@pytest.mark.parametrize("path", [("spec",), ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec")])
def test_rayjob_schema_refuses_unknown_keys(
    rayjob: tuple[Any, dict[str, Any]], validator: Any, path: tuple[str, ...]
) -> None:
    part = rayjob[1]
    for key in path:
        part = part[key]
    part["entrypiont"] = "peft-sweep"
    (error,) = validator.iter_errors(rayjob[1])
    assert "'entrypiont' was unexpected" in error.message


def test_rayjob_runs_the_configuration_that_it_mounts(rayjob: tuple[dict[str, Any], dict[str, Any]]) -> None:
    config_map, job = rayjob
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "sweep", "configMap": {"name": config_map["metadata"]["name"]}}]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (file,) = config_map["data"]
    assert job["spec"]["entrypoint"] == f"peft-sweep run {mount['mountPath']}/{file} --address auto"


def test_rayjob_configuration_is_one_for_a_growing_cluster(
    rayjob: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    ((name, text),) = rayjob[0]["data"].items()
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name)
    (group,) = rayjob[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (config.lanes.max, config.lanes.gpus) == (group["maxReplicas"], 1)
    assert config.storage.startswith("s3://")


def test_rayjob_names_the_pinned_release_of_ray(rayjob: tuple[Any, dict[str, Any]]) -> None:
    assert f"\nray=={rayjob[1]['spec']['rayClusterSpec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_rayjob_keeps_lanes_off_the_head(rayjob: tuple[Any, dict[str, Any]]) -> None:
    cluster = rayjob[1]["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert cluster["authOptions"] == {"mode": "token"}
    images = {
        container["image"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    }
    assert len(images) == 1


def test_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    check = subprocess.run([hadolint, "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (check.returncode, check.stdout) == (0, "")


def test_dockerfile_copies_what_the_wheel_is_built_from() -> None:
    copies = re.findall(r"^COPY (.+) (\S+)$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert {name for names, _ in copies for name in names.split()} == mounted()
    for names, target in copies:
        assert target in ("./", f"./{names}")
    sent = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert set(sent) == mounted()


def test_local_cluster_file_is_accepted_by_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "local.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["max_workers"] == len(config["provider"]["worker_ips"])


def test_local_cluster_file_mounts_and_starts_as_on_aws() -> None:
    local, aws = (yaml.safe_load(file.read_text()) for file in (DEPLOY / "local.yaml", ROOT / "cluster.yaml"))
    assert local["file_mounts"] == aws["file_mounts"]
    *worker, spot_watch = aws["worker_start_ray_commands"]
    assert "spot/instance-action" in spot_watch
    assert local["worker_start_ray_commands"] == worker
    head = [line.replace(" --num-cpus=0", "") for line in aws["head_start_ray_commands"]]
    assert local["head_start_ray_commands"] == head
    assert set(local["setup_commands"][-1:]) < set(aws["setup_commands"])


@pytest.mark.parametrize("name", ["Dockerfile", "rayjob.yaml", "local.yaml"])
def test_deploy_files_are_in_the_document(name: str) -> None:
    assert f"deploy/{name}" in "".join(blocks(DOCUMENT, "sh"))


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", ["cluster.yaml", "deploy/local.yaml"])
def test_setup_commands_install_the_command_in_an_empty_home(file: str, tmp_path: Path) -> None:
    """Run a launcher file's own setup commands, in a home that has the mounted files and nothing else."""
    from .test_cluster_file import mount

    config = yaml.safe_load((ROOT / file).read_text())
    home = tmp_path / "home"
    mount(config, home / "peft-sweep")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret")
    shutil.copy("/etc/skel/.bashrc", home)
    # uv takes a release of Python that it has installed already; without network it could not get one.
    release = f"cpython-{'.'.join(map(str, sys.version_info[:3]))}-linux-x86_64-gnu"
    interpreter = home / "pythons" / release / "bin" / "python3.11"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    environment = {
        "HOME": str(home),
        "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "UV_PYTHON_INSTALL_DIR": str(home / "pythons"),
        "UV_SYSTEM_CERTS": "1",  # uv knows no certificate authority that was added to this machine
    }
    for _ in range(2):  # the second time on a node that is set up already, as in an image of one
        for command in config["setup_commands"]:
            done = subprocess.run(["bash", "-c", command], env=environment, cwd=home, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stderr)
    script = (home / ".bashrc").read_text().splitlines()[0] + "; peft-sweep --version; ray --version"
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["peft-sweep", "ray,"], done.stdout
    assert (home / ".bashrc").read_text().count("RAY_AUTH_MODE") == 1
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
