"""``plan`` of Llama-3-8B for an 80-GB GPU, from its ``config.json`` and a tokenizer, without weights."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import search_spaces

from ..architectures import LLAMA_3_8B
from ..small_sweep import COMMAND

METHODS = ["lora", "norm_tuning", "full"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose file of weights is empty, and rows of more than 8,192 tokens."""
    folder = tmp_path_factory.mktemp("llama")
    LLAMA_3_8B.save_pretrained(folder / "llama")
    save_file({}, folder / "llama" / "model.safetensors")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "</s>": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="</s>")
    tokenizer.save_pretrained(folder / "llama")
    rows = [{"prompt": f"{row} " + "word " * 9000, "completion": "answer " * 255} for row in range(20)]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def _fixed(method: str) -> dict[str, Any]:
    """Return overrides that fix a method's defaults, because trying every end of a space takes long."""
    return {name: {"value": value} for name, value in search_spaces.get(method).default.items()}


def plan(
    folder: Path, max_length: int, memory: str, *arguments: str, **backbone: Any
) -> subprocess.CompletedProcess[str]:
    """Run ``plan`` for lanes with a GPU of that memory."""
    task = {"type": "causal-lm", "data": "rows.jsonl", "prompt": "prompt", "completion": "completion"}
    values = {
        "backbone": {"model": "llama", **backbone},
        "tasks": {"chat": task},
        "methods": METHODS,
        "search_space": {method: _fixed(method) for method in METHODS},
        "training": {"max_length": max_length},
        "budget": {"trials": 10},
        "lanes": {"gpu_memory": memory},
    }
    (folder / "sweep.yaml").write_text(json.dumps(values))  # JSON is YAML
    command = [*COMMAND, "plan", "sweep.yaml", *arguments]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_llama_plan_at_512_tokens_tells_what_fits(folder: Path) -> None:
    result = plan(folder, 512, "80GB")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.rstrip() for line in result.stdout.splitlines() if line}
    assert rows["gpu"] == "gpu       80.0 GB (lanes.gpu_memory) · backbone 5.7 GB · 69.2 GB left for trials"
    assert rows["lora"].endswith("8 of 16")
    assert rows["norm_tuning"].endswith("16 of 16")
    assert "full  left out: one row of 512 tokens takes 1" in result.stdout
    assert "rows of 512 tokens, the longest" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.slow
def test_llama_plan_at_8192_tokens_leaves_out_what_cannot_run(folder: Path) -> None:
    result = plan(folder, 8192, "80GB", "--json")
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    methods = {row["name"]: row for row in values["tasks"]["chat"]["methods"]}
    assert not methods["full"]["available"]
    assert "one row of 8,192 tokens takes" in methods["full"]["reason"]
    lora, norms = (methods[name]["estimate"] for name in ("lora", "norm_tuning"))
    assert (lora["rows_at_once"], lora["checkpointed_blocks"]) == (1, True)
    assert (norms["rows_at_once"], norms["checkpointed_blocks"]) == (1, False)
    for estimate in (lora, norms):
        assert estimate["scoring_memory_bytes"] < estimate["peak_memory_bytes"] <= values["gpu"]["room_bytes"]


def test_llama_that_fits_no_gpu_is_one_clear_error(folder: Path) -> None:
    result = plan(folder, 512, "16GB", quantization="none")
    assert result.returncode == 2
    error = result.stderr.splitlines()[-2:]
    assert error[0] == (
        "backbone.model: llama: takes 16.1 GB; a worker can use 14.1 GB of a GPU with 16.0 GB (lanes.gpu_memory)"
    )
    assert "backbone.quantization: nf4, which takes 5.7 GB" in error[1]
    assert "split no model over GPUs" in error[1]
