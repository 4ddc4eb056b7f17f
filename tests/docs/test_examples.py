"""The examples are configurations that load, each with a first line that says what it is for."""

import runpy
from pathlib import Path

import pytest

import methods
from orchestrator.config import load_config

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def test_there_are_examples_of_several_types() -> None:
    tasks = [task for example in EXAMPLES for task in load_config(example).tasks.values()]
    assert {task.type for task in tasks} >= {"classification", "causal-lm", "token-classification", "embedding"}


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
    assert config.backbone.model.startswith("package:")
    assert all(file.startswith("package:") or (example.parent / file).is_file() for file in files)


@pytest.mark.parametrize("name", ["entities", "retrieval"])
def test_rows_of_an_example_are_those_that_its_generator_makes(name: str, tmp_path: Path) -> None:
    generator = EXAMPLES[0].with_name(f"{name}.py")
    copy = tmp_path / generator.name
    copy.write_text(generator.read_text())
    runpy.run_path(str(copy), run_name="__main__")
    assert (tmp_path / f"{name}.jsonl").read_text() == generator.with_suffix(".jsonl").read_text()
