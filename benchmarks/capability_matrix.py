"""Time of ``peft-sweep methods --backbone``, which finds the methods that a backbone can train.

    python -m benchmarks.capability_matrix

Measured for a small encoder, a small decoder, and the architecture of Llama-3-8B, of which only the config.json exists.
A line per backbone has ``seconds``, wall seconds of the whole command including imports; ``methods``, the number of
method names in its output; and ``available``, the number of these that it reports as available.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._common import MINILM, SMOLLM2, argument_parser, emit

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
    """Measure every backbone."""
    argument_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "llama-3-8b"
        large.mkdir()
        (large / "config.json").write_text(json.dumps(LLAMA_3_8B))
        for backbone in (MINILM, SMOLLM2, str(large)):
            emit(
                benchmark="capability_matrix",
                backbone=backbone if ":" in backbone else Path(backbone).name,
                **measure_command(backbone),
            )


def measure_command(backbone: str) -> dict[str, float]:
    """Run the command for a backbone, and return its wall seconds and the numbers of methods in its output."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    start = time.perf_counter()
    process = subprocess.run([program, "methods", "--backbone", backbone, "--json"], capture_output=True, check=True)
    seconds = time.perf_counter() - start
    rows = json.loads(process.stdout)
    return {"seconds": seconds, "methods": len(rows), "available": sum(row["available"] for row in rows)}


if __name__ == "__main__":
    main()
