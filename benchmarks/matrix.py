"""How long the capability matrix of a backbone takes, imports included, and how many methods it says yes to."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._common import MINILM, SMOLLM2, emit

LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "torch_dtype": "bfloat16",
}


def main() -> None:
    """Measure a small encoder, a small decoder, and the architecture of a large one, of which no weights are here."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "llama-3-8b"
        large.mkdir()
        (large / "config.json").write_text(json.dumps(LLAMA_3_8B))
        for backbone in (MINILM, SMOLLM2, str(large)):
            emit(
                benchmark="matrix", backbone=backbone if ":" in backbone else Path(backbone).name, **measured(backbone)
            )


def measured(backbone: str) -> dict[str, float]:
    """Seconds of the whole command, and its methods."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    begin = time.perf_counter()
    told = subprocess.run([program, "methods", "--backbone", backbone, "--json"], capture_output=True, check=True)
    seconds = time.perf_counter() - begin
    rows = json.loads(told.stdout)
    return {"seconds": seconds, "methods": len(rows), "available": sum(row["available"] for row in rows)}


if __name__ == "__main__":
    main()
