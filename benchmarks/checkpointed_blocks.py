"""Estimated peak memory of one row of 8,192 tokens on an 8B decoder, with and without checkpointed blocks.

    python -m benchmarks.checkpointed_blocks

LoRA in its default configuration, with rank 16, on a Llama of the sizes of Llama-3-8B in NF4, with the
kernels of a GPU; half of the row's tokens count in the loss. Nothing is computed: the step runs on the meta device. A
line per case has ``peak_bytes`` above the backbone, and ``flops``.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig

import search_spaces
from benchmarks._command_line import argument_parser, emit
from orchestrator.planning.estimates import Batch, StepModel
from orchestrator.tasks import TASK_TYPES


def main() -> None:
    """Estimate a step without checkpointed blocks, then with them."""
    parser = argument_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of the row (default: %(default)s)")
    parser.add_argument("--method", default="lora", metavar="METHOD", help="method to estimate (default: %(default)s)")
    arguments = parser.parse_args()
    default = search_spaces.get(arguments.method).default
    model, params = llama_8b(), {**default, **({"rank": 16} if "rank" in default else {})}
    batch = Batch(rows=1, tokens=arguments.tokens, targets=arguments.tokens // 2)
    for checkpointed in (False, True):
        cost = model.cost(arguments.method, params, batch, checkpointed=checkpointed)
        if cost is None:
            raise RuntimeError(f"there is no estimate for {arguments.method}")
        case = {"method": arguments.method, "tokens": arguments.tokens, "checkpointed": checkpointed}
        emit(benchmark="checkpointed_blocks", **case, peak_bytes=cost.peak_bytes, flops=cost.flops)


def llama_8b() -> StepModel:
    """Return the model that estimates steps of a Llama of 8 billion parameters on a GPU."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        dtype=torch.bfloat16,
    )
    kind = TASK_TYPES["causal-lm"]
    return StepModel(config, kind, name="llama", labels=0, quantization="nf4", dtype=torch.bfloat16, cuda=True)


if __name__ == "__main__":
    main()
