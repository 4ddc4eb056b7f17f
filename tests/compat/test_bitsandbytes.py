"""How bitsandbytes is imported, and what of it we call."""

from __future__ import annotations

import subprocess
import sys

from .reliance import parameters, relied_on


@relied_on("=torch.compile", by="orchestrator/backbone/bitsandbytes.py")
def test_bitsandbytes_is_imported_without_compiler() -> None:
    lines = (
        "import sys, warnings",
        "warnings.simplefilter('ignore')",
        "from orchestrator.backbone.bitsandbytes import functional",
        "assert functional.quantize_4bit and functional.dequantize_4bit",
        "assert 'torch._inductor' not in sys.modules, 'importing bitsandbytes starts the compiler of torch'",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bitsandbytes_quantizes_by_functions() -> None:
    from bitsandbytes import functional

    assert parameters(functional.quantize_4bit).startswith("A, absmax, out, blocksize, compress_statistics, quant_type")
    assert parameters(functional.dequantize_4bit).startswith("A, quant_state, absmax, out, blocksize, quant_type")
    assert parameters(functional.QuantState.as_dict) == "self, packed"


def test_bitsandbytes_multiplies_four_bit_weights() -> None:
    import torch
    from bitsandbytes import functional

    schema = torch.ops.bitsandbytes.gemm_4bit.default._schema
    names = "A, B, shapeB, absmax, blocksize, quant_type, bias, absmax_8bit, absmax_code, absmax_offset"
    assert ", ".join(argument.name for argument in schema.arguments) == names
    _, state = functional.quantize_4bit(torch.ones(128, 128), quant_type="nf4", compress_statistics=True)
    assert state.nested
    assert (state.state2.blocksize, state.offset.dtype) == (256, torch.float32), "what the kernel expects"


@relied_on("=get_state_buffer", by="orchestrator/engine/paged_adamw.py")
def test_bitsandbytes_optimizers_ask_for_pages_by_one_method() -> None:
    import torch
    from bitsandbytes.functional import GlobalPageManager
    from bitsandbytes.optim import PagedAdamW8bit

    parameter = torch.nn.Parameter(torch.ones(100, 100))
    optimizer, asked = PagedAdamW8bit([parameter]), []
    assert parameters(PagedAdamW8bit.get_state_buffer) == "self, p, dtype"
    optimizer.get_state_buffer = lambda p, dtype: asked.append(dtype) or torch.zeros_like(p, dtype=dtype)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert asked == [torch.uint8] * 2
    assert isinstance(GlobalPageManager.get_instance().paged_tensors, list)
    assert callable(optimizer.to_gpu)
