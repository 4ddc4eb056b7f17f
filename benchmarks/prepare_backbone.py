"""Host memory and time that the preparation of a backbone takes.

    python -m benchmarks.prepare_backbone [--threads 2]

A line for each of two checkpoints, SmolLM2 (GGUF) and a random Llama of a billion weights (bfloat16, in shards), has
``weights``; ``bytes``, the size of the checkpoint; ``largest_bytes``, of its largest weight as transformers loads it;
``peak_bytes``, the largest resident memory of the preparing process above what it has once it has imported everything
and prepared a tiny checkpoint; ``allowed_bytes``, three times the largest weight and 500 MB; and
``seconds_per_billion``, the wall time per 1e9 weights. Linux only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._common import SMOLLM2, argument_parser, emit, scratch_folder

AUTO_CLASS = "AutoModelForCausalLM"
ALLOWED_BYTES = 500_000_000


def main() -> None:
    """Prepare both checkpoints, each in a process of its own; with ``prepare``, be that process."""
    if sys.argv[1:2] == ["prepare"]:
        prepare(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argument_parser(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    with scratch_folder() as folder:
        save_llama(folder / "tiny", hidden=64, layers=1)
        save_llama(folder / "llama", hidden=2048, layers=19)
        for name, model in (("SmolLM2", SMOLLM2), ("Llama 1B", str(folder / "llama"))):
            command = [sys.executable, "-m", "benchmarks.prepare_backbone", "prepare", model, str(folder), str(threads)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            emit(benchmark="prepare_backbone", backbone=name, threads=threads, **json.loads(output))


def save_llama(folder: Path, hidden: int, layers: int) -> None:
    """Save a random Llama in bfloat16, in shards of 500 MB."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
    )
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="500MB")


def prepare(model: str, folder: Path, threads: int) -> None:
    """Prepare a checkpoint, and print what that took."""
    import torch

    from orchestrator.backbone.publish import publish_backbone
    from orchestrator.backbone.skeleton import largest_weight
    from orchestrator.backbone.source import resolve
    from orchestrator.common.storage import Storage
    from orchestrator.config import BackboneConfig

    torch.set_num_threads(threads)
    storage, task = Storage(str(folder / f"storage-{threads}")), (AUTO_CLASS, "causal-lm", 0, False)
    publish_backbone(BackboneConfig(model=str(folder / "tiny")), folder, *task, storage)
    before = resident_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    start = time.perf_counter()
    prepared = publish_backbone(BackboneConfig(model=model), folder, *task, storage)
    seconds, peak = time.perf_counter() - start, resident_memory("VmHWM")
    source = resolve(BackboneConfig(model=model), folder)
    largest = largest_weight(source.config(), AUTO_CLASS)
    files = [source.path] if source.path.is_file() else list(source.path.glob("*.safetensors"))
    figures = {
        "weights": prepared.quantized.parameters,
        "bytes": sum(file.stat().st_size for file in files),
        "largest_bytes": largest,
        "peak_bytes": peak - before,
        "allowed_bytes": 3 * largest + ALLOWED_BYTES,
        "seconds_per_billion": seconds / prepared.quantized.parameters * 1e9,
    }
    print(json.dumps(figures))


def resident_memory(field: str) -> int:
    """Return the resident memory of this process in bytes: now (``VmRSS``), or its peak (``VmHWM``)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


if __name__ == "__main__":
    main()
