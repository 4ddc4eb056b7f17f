"""What the README shows works, beside what test_documents.py checks in every document."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from orchestrator.config import load_config
from orchestrator.export.readme import loading
from orchestrator.export.trained import Trained
from orchestrator.tracking.bundle import BundleBackbone

from .documents import ROOT, blocks

README = ROOT / "README.md"
MOST_WORDS = 1250


def test_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MOST_WORDS


def test_readme_links_every_document() -> None:
    text = README.read_text()
    documents = [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
    assert [path for path in [*documents, "CONTRIBUTING.md", "CHANGELOG.md"] if f"]({path})" not in text] == []


def test_readme_configuration_loads(tmp_path: Path) -> None:
    (block,) = blocks(README, "yaml")
    values = yaml.safe_load(block)
    (task,) = values["tasks"].values()
    parquet.write_table(pa.table({task["text"]: ["hello"], task["label"]: ["a"]}), tmp_path / task["data"])
    (tmp_path / "mail.yaml").write_text(block)
    assert load_config(tmp_path / "mail.yaml").resolved()["budget"]["trials"] == values["budget"]["trials"]


def test_readme_python_block_loads_a_registered_name() -> None:
    (block,) = blocks(README, "python")
    (name,) = re.findall(r"models:/([\w-]+)@champion", block)
    assert name in load_config(ROOT / "examples" / "airline.yaml").tasks


def test_methods_python_block_is_what_exported_folders_say() -> None:
    empty: dict[str, Any] = dict.fromkeys(("reference", "name", "origin", "method", "adapter", "tokenizer"), "")
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
    trained = Trained(**empty, type="classification", labels=labels, columns={"text": "text"}, backbone=backbone)
    (block,) = blocks(ROOT / "docs" / "methods.md", "python")
    assert block == loading(trained, "bottlenecks")
