"""Quantizing, loading and dequantizing a backbone; its bytes, and what its fingerprint sees."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from itertools import islice

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.gpu_stages.lab import EIGHT_BILLION, ONE_BILLION, TASK, Lab, skeleton_of
from benchmarks.gpu_stages.report import Report
from orchestrator import engine
from orchestrator.backbone.checkpoint import freezable
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.weights import quantize

THREADS = (1, 16)
SAMPLE_WEIGHTS = 30_000_000
COMPARED_LAYERS = 24
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of a weight: its own, an 8-bit scale per block of 64, and a scale of 256 of those."""


def one_billion(lab: Lab, report: Report) -> None:
    """Save a random model, quantize it as a sweep does, load it, and compare its weights with the processor's."""
    checkpoint = lab.folder / "checkpoint"
    torch.manual_seed(0)
    with torch.device(lab.device):
        model = AutoModelForCausalLM.from_config(lab.config(ONE_BILLION), dtype=torch.bfloat16)
    report.figure("parameters", sum(parameter.numel() for parameter in model.parameters()))
    _time_quantization(report, model)
    begin = time.perf_counter()
    model.to("cpu").save_pretrained(checkpoint)
    report.figure("save_seconds", time.perf_counter() - begin)
    del model
    lab.collect()
    resident = _peak_bytes()
    begin = time.perf_counter()
    reference = engine.pretrained(str(checkpoint), TASK, dtype=torch.float32)
    report.figure("quantize_file_seconds", time.perf_counter() - begin)
    report.figure("quantize_file_threads", torch.get_num_threads())
    report.figure("peak_growth_of_processor_memory_bytes", _peak_bytes() - resident)
    [file] = [path for path in (lab.folder / "cache").rglob("*.safetensors") if path.is_file()]
    report.figure("file_bytes", file.stat().st_size)
    begin = time.perf_counter()
    backbone = load(file, TASK, name="random", dtype=torch.float32, device=lab.device)
    lab.synchronize()
    report.figure("load_seconds", time.perf_counter() - begin)
    if lab.require_gpu(report, "weights equal the processor's bit for bit"):
        _compare_weights(reference, backbone, report)


def _time_quantization(report: Report, model: PreTrainedModel) -> None:
    """Time the quantization of some layers on the processor, by number of threads."""
    weights = [model.get_parameter(f"{name}.weight").detach() for name in freezable(model, ())]
    before = torch.get_num_threads()
    for threads in sorted({min(count, os.cpu_count() or 1) for count in THREADS}):
        torch.set_num_threads(threads)
        done = seconds = 0.0
        for weight in weights:
            on_processor = weight.cpu()
            begin = time.perf_counter()
            quantize(on_processor, "nf4", True)
            seconds += time.perf_counter() - begin
            done += weight.numel()
            if done > SAMPLE_WEIGHTS:
                break
        report.figure(f"quantize_seconds_per_1e9_weights_{threads}_threads", seconds / done * 1e9)
    torch.set_num_threads(before)


def _compare_weights(reference: SharedBackbone, backbone: SharedBackbone, report: Report) -> None:
    differing = compared = 0
    largest = 0.0
    for first, second in islice(zip(_layers(reference), _layers(backbone), strict=True), COMPARED_LAYERS):
        difference = (first.frozen.dequantize(torch.float32) - second.frozen.dequantize(torch.float32).cpu()).abs()
        differing, compared = differing + int((difference > 0).sum()), compared + difference.numel()
        largest = max(largest, float(difference.max()))
        if report.seconds_left() < 0:
            break
    report.figure("compared_weights", compared)
    report.figure("differing_weights", differing)
    report.figure("largest_difference", largest)
    report.check("dequantized weights equal the processor's", not differing, f"largest difference {largest:g}")


def eight_billion(lab: Lab, report: Report) -> None:
    """Quantize an 8B shape on the device, load it, and change some bytes of it."""
    begin = time.perf_counter()
    file = lab.file(EIGHT_BILLION)
    report.figure("quantize_on_device_seconds", time.perf_counter() - begin)
    lab.unload()
    before = torch.cuda.memory_allocated(lab.device) if lab.cuda else 0
    begin = time.perf_counter()
    backbone = lab.backbone(EIGHT_BILLION)
    lab.synchronize()
    report.figure("load_seconds", time.perf_counter() - begin)
    report.figure("file_bytes", file.stat().st_size)
    shapes = skeleton_of(lab.config(EIGHT_BILLION))
    frozen = sum(shapes.get_parameter(f"{name}.weight").numel() for name in freezable(shapes, ()))
    estimated = frozen * NF4_BITS / 8 + 2 * (sum(p.numel() for p in shapes.parameters()) - frozen)
    report.figure("estimated_bytes", estimated)
    if lab.require_gpu(report, "bytes on the device against the estimate"):
        used = torch.cuda.memory_allocated(lab.device) - before
        report.figure("device_bytes", used)
        report.check("bytes are within 5 % of the estimate", abs(used / estimated - 1) < 0.05, used / estimated)
    _change_bytes(lab, report, backbone)


def _change_bytes(lab: Lab, report: Report, backbone: SharedBackbone) -> None:
    """Change one byte, one row and one column of a weight, one row of the embedding, and look at the fingerprint."""
    fingerprint = backbone.fingerprint()
    report.figure("fingerprint_seconds", lab.median_seconds(backbone.fingerprint, 3, report))
    report.figure("checksum_seconds", lab.median_seconds(backbone.checksum, 1, report))
    layer = next(_layers(backbone))
    packed = layer.frozen.tensors()["packed"].view(layer.out_features, -1)
    embedding = backbone.model.get_input_embeddings().get_parameter("weight")
    changes = {
        "one byte": packed[layer.out_features // 2, 7:8],
        "one row": packed[layer.out_features // 2],
        "one column": packed[:, 7],
        "one row of the embedding": embedding[embedding.shape[0] // 2],
    }
    for name, part in changes.items():
        kept = part.clone()
        part.add_(1)
        seen = backbone.fingerprint() != fingerprint
        part.copy_(kept)
        report.figure(f"fingerprint_sees_{name.replace(' ', '_')}", seen)
        report.check(f"the fingerprint sees {name}", seen)
    report.check("the fingerprint is as before", backbone.fingerprint() == fingerprint)


def _layers(backbone: SharedBackbone) -> Iterator[FrozenLinear]:
    return (module for module in backbone.model.modules() if isinstance(module, FrozenLinear))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
