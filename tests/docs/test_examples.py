"""The examples are configurations that load, each with a first line that says what it is for."""

from pathlib import Path

import pytest

import methods
from orchestrator.config import load_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def test_there_are_examples_of_both_kinds() -> None:
    tasks = [task for example in EXAMPLES for task in load_config(example).tasks.values()]
    assert {task.type for task in tasks} == {"classification", "causal-lm"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_from_any_folder(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(example)
    assert config.name == example.stem
    assert {name for name in config.methods if ":" not in name} <= {*methods.names(), *config.plugin_names}
    assert set(config.search_space) <= set(config.methods)
    assert example.read_text().startswith("# ")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_downloads_nothing(example: Path) -> None:
    config = load_config(example)
    files = [file for task in config.tasks.values() for file in task.files().values()]
    assert all(place.startswith("package:") for place in (config.backbone.model, *files))
