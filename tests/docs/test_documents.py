"""What the documents name exists: commands, links and anchors, benchmarks, files, configuration keys, make targets."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
import yaml
from pyarrow import parquet
from pydantic import BaseModel

import methods
import search_spaces
from orchestrator.cli import app
from orchestrator.config import load_config
from orchestrator.config.method_names import method_problem
from orchestrator.config.sections import SweepConfig

from .documents import DOCUMENTS, ROOT, anchors, blocks, code_names, links, name_of, prose, table

TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
COMMANDS = sorted(
    {line for document in DOCUMENTS for line in re.findall(r"peft-sweep((?: [^\s`'#|]+)+)", document.read_text())}
)
BASE: dict[str, Any] = {
    "backbone": {"model": "hub/model"},
    "tasks": {"mail": {"type": "classification", "data": "mail.parquet", "text": "body", "label": "folder"}},
    "budget": {"trials": 1},
}
COLUMNS = ("text", "body", "label", "folder", "reply", "language", "article", "highlights", "question", "answer",
           "sentiment", "tweet", "query", "passage", "messages")  # fmt: skip

OUR_FILE = re.compile(r"`((?:orchestrator|methods|search_spaces|tests|examples|benchmarks)/[\w/.]*)`(?: \(`(\w+)`\))?")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def test_commands_are_found_in_the_documents() -> None:
    assert {command.split()[0] for command in COMMANDS} >= {
        "plan",
        "run",
        "resume",
        "methods",
        "models",
        "schema",
        "select",
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_command_line_exists_with_its_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = [word for word in shlex.split(line) if word != "--version"]
    context = command.make_context("peft-sweep", [], resilient_parsing=True)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
    context.resilient_parsing = False  # from here on an unknown option is an error
    command.make_parser(context).parse_args(words)


@each_document
def test_link_and_its_anchor_exist(document: Path) -> None:
    for link in links(document):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_document
def test_links_are_relative(document: Path) -> None:
    assert [link for link in links(document) if link.startswith("/")] == []


@each_document
def test_benchmark_command_exists(document: Path) -> None:
    for module in re.findall(r"python -m (benchmarks[\w.]*)", document.read_text()):
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file(), module


@each_document
def test_make_target_exists(document: Path) -> None:
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", document.read_text(), flags=re.MULTILINE)
    assert set(named) <= TARGETS


@each_document
def test_file_and_the_name_in_it_exist(document: Path) -> None:
    """Paths of our own files in backticks, and the name that follows one in brackets."""
    for path, name in OUR_FILE.findall(prose(document)):
        assert (ROOT / path).exists() or _is_of_a_recipe(path), path
        if name:
            assert re.search(rf"^(?:class|def) {name}\b", (ROOT / path).read_text(), flags=re.MULTILINE), (path, name)


def _is_of_a_recipe(path: str) -> bool:
    """Whether a recipe of CONTRIBUTING.md writes the file."""
    return f"# {path}\n" in (ROOT / "CONTRIBUTING.md").read_text()


@each_document
def test_name_of_a_method_family_can_be_written(document: Path) -> None:
    for name in re.findall(r"`((?:peft|compose):[a-z][^`]*)`", prose(document)):
        assert method_problem(name, ()) == "", name


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if one.name != "CONTRIBUTING.md"], ids=name_of)
def test_yaml_block_is_a_valid_configuration(document: Path, tmp_path: Path) -> None:
    texts = {name: ["hello", "goodbye"] for name in COLUMNS}
    lists = {name: [["late"], ["O"]] for name in ("tokens", "tags", "topics", "choices")}
    rows = pa.table({**texts, **lists, "confidence": [0.5, 1.0]})
    for name in set(
        re.findall(r"[\w-]+\.(?:parquet|jsonl|csv)", " ".join(["mail.parquet", *blocks(document, "yaml")]))
    ):
        if name.endswith("parquet"):
            parquet.write_table(rows, tmp_path / name)
        elif name.endswith("csv"):
            (tmp_path / name).write_text(",".join(texts) + ",confidence\n" + "1," * len(texts) + "1\n")
        else:
            (tmp_path / name).write_text('{"body": "hello", "reply": "goodbye"}\n')
    for block in blocks(document, "yaml"):
        values = copy.deepcopy(BASE) | yaml.safe_load(block)
        (tmp_path / "mail.yaml").write_text(yaml.safe_dump(values))
        load_config(tmp_path / "mail.yaml")


@each_document
def test_python_block_compiles(document: Path) -> None:
    for block in blocks(document, "python"):
        compile(block, name_of(document), "exec")


def test_every_configuration_key_is_documented() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    words = set(re.findall(r"\w+", text))
    assert [key for key in keys_of(SweepConfig) if key not in words] == []


def keys_of(section: type[BaseModel]) -> Iterator[str]:
    """Yield the keys of a section and of the sections in it, except in unions, which are documented by hand."""
    for key, field in section.model_fields.items():
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation)


def test_methods_table_lists_every_method_and_whether_it_merges() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    merges = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", text, flags=re.MULTILINE))
    assert merges == {name: "yes" if methods.get(name).supports_merge else "no" for name in methods.names()}


def test_methods_table_lists_every_hyperparameter() -> None:
    common = {"learning_rate", "batch_size", "warmup", "weight_decay"}
    rows = table(ROOT / "docs" / "methods.md", "method")
    listed = {code_names(method)[0]: set(code_names(names)) for method, names in rows}
    assert listed == {name: set(search_spaces.get(name).distributions) - common for name in methods.names()}
