"""Read a GGUF file one tensor at a time.

transformers dequantizes the whole of a file to float32 when it loads it. What it does with each tensor is taken from
there, for the architectures whose tensors stay apart.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from orchestrator.backbone.source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def gguf_tensors(source: Source, auto_class: str) -> tuple[PreTrainedModel, set[str], Callable[[str], Tensor]]:
    """Open a GGUF file.

    Returns:
        The model on the meta device, the names of the parameters that the file lacks, and a function that reads a
        parameter by its name in the model.

    Raises:
        ValueError: if the architecture's tensors are merged or split on loading, or their names are not the model's.
    """
    import transformers
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    config = source.config()
    config.dtype = config.dtype or torch.float32
    with torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, auto_class).from_config(config, dtype=config.dtype)
    reader = GGUFReader(source.path)
    processor = _processor(source, reader)
    names = get_gguf_hf_weights_map(model, processor)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = {names[tensor.name]: tensor for tensor in reader.tensors if tensor.name in names}
    if unknown := sorted(tensors.keys() - parameters.keys()):
        raise ValueError(f"the model has no {unknown[0]}")

    def read(name: str) -> Tensor:
        from gguf import dequantize

        tensor = tensors[name]
        weights = dequantize(tensor.data, tensor.tensor_type)
        result = processor.process(weights=weights, name=tensor.name, tensor_key_mapping=names, parsed_parameters={})
        _release(reader)
        # What is stored in float32 is not unpacked: it is the file's map, which cannot be written to.
        weights = np.require(result.weights, requirements=["C_CONTIGUOUS", "WRITEABLE"])
        return torch.from_numpy(weights).to(parameters[name].dtype)

    missing = {name for name, _ in model.named_parameters()} - tensors.keys()
    return model.requires_grad_(False).eval(), missing, read


def _processor(source: Source, reader: Any) -> Any:
    """Return what transformers applies to each tensor of an architecture, such as another order of its rows."""
    from transformers import modeling_gguf_pytorch_utils as library

    (architecture,) = library.read_field(reader, "general.architecture")
    kind = library.TENSOR_PROCESSORS.get(architecture, library.TensorProcessor)
    apart = (library.TensorProcessor, library.LlamaTensorProcessor, library.Gemma2TensorProcessor)
    if kind not in apart:
        raise ValueError(f"the tensors of {architecture} are not those of the model")
    return kind(config=library.load_gguf_checkpoint(str(source.path))["config"])


def _release(reader: Any) -> None:
    """Give back the pages of the file that were read."""
    if isinstance(pages := reader.data.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
