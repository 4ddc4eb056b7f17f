"""What the README shows is there."""

import re
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml
from pyarrow import parquet

import methods
from orchestrator.cli import app
from orchestrator.config import load_config
from orchestrator.export.readme import loading
from orchestrator.export.trained import Trained
from orchestrator.tracking.bundle import BundleBackbone

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"peft-sweep((?: [^\s`'#]+)+)", TEXT)))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_commands_were_found() -> None:
    assert {command.split()[0] for command in COMMANDS} >= {"plan", "run", "methods", "models", "schema"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists_with_its_options(line: str) -> None:
    known: Any = typer.main.get_command(app)
    words = shlex.split(line)
    context = known.make_context("peft-sweep", [], resilient_parsing=True)
    while words and hasattr(known, "commands") and not words[0].startswith("-"):
        known = known.commands[words.pop(0)]
        context = known.make_context(known.name, [], parent=context, resilient_parsing=True)
    context.resilient_parsing = False  # from here on an option that is not there is an error
    known.make_parser(context).parse_args(words)


def test_its_configuration_loads(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    values = yaml.safe_load(block)
    (task,) = values["tasks"].values()
    parquet.write_table(pa.table({task["text"]: ["hello"], task["label"]: ["a"]}), tmp_path / task["data"])
    (tmp_path / "mail.yaml").write_text(block)
    assert load_config(tmp_path / "mail.yaml").resolved()["budget"]["trials"] == values["budget"]["trials"]


def test_the_table_lists_every_method_and_whether_it_merges() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", TEXT, flags=re.MULTILINE))
    assert table == {name: "yes" if methods.get(name).supports_merge else "no" for name in methods.names()}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][\w-]*)(?=[`\s]* )", "\n".join(blocks("sh")))) <= targets
    assert set(re.findall(r"`make ([\w-]+)`", TEXT)) <= targets


def test_what_the_first_python_block_loads_is_a_registered_name() -> None:
    block = blocks("python")[0]
    compile(block, "README.md", "exec")
    (name,) = re.findall(r"models:/([\w-]+)@champion", block)
    assert name in load_config(ROOT / "examples" / "airline.yaml").tasks


def test_the_last_python_block_is_what_exported_folders_say() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("reference", "name", "origin", "method", "adapter", "tokenizer"), "")
    config = load_config(ROOT / "examples" / "airline.yaml").backbone
    backbone = BundleBackbone(
        model=config.model,
        quantization=config.quantization,
        double_quantization=config.double_quantization,
        compute_dtype="float32",
        digest="",
        checksum="",
    )
    labels = ("negative", "neutral", "positive")
    trained = Trained(**nothing, type="classification", labels=labels, backbone=backbone)
    assert blocks("python")[-1] == loading(trained, "bottlenecks")
