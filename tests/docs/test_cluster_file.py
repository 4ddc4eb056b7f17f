"""The launcher file, by Ray's own schema and Ray's own preparation of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).resolve().parents[2] / "cluster.yaml"

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


def test_the_installation_is_pinned_and_whole(config: dict[str, Any]) -> None:
    assert any("--constraint ~/peft-sweep/constraints.txt" in line for line in config["setup_commands"])
    for remote, local in config["file_mounts"].items():
        if remote.startswith("~/peft-sweep"):
            assert (FILE.parent / local).exists(), local
