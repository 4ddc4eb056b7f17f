"""Scoring a language model on long rows, and generating text."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.gpu_stages.lab import EIGHT_BILLION, Lab
from benchmarks.gpu_stages.report import Report
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.config import GpuSettings

ROWS, LENGTHS = 64, (512, 1024, 2048)
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 8, 64, 24


def scoring(lab: Lab, report: Report) -> None:
    """Score 64 rows of each length in one batch as the sweep would, then generate."""
    backbone = lab.backbone(EIGHT_BILLION)
    dense = tokens_per_second(lab, report, backbone)
    report.figure("generated_tokens_per_second", dense)
    for tokens in LENGTHS if not lab.small else (16, 32):
        if report.seconds_left() < 0:
            report.skip(f"{ROWS}x{tokens}", "no time left")
            continue
        _score(lab, report, backbone, tokens)

    del backbone
    if lab.require_gpu(report, "generation with the 4-bit kernel"):
        settings = GpuSettings(four_bit_generation=True)
        fused = tokens_per_second(lab, report, lab.backbone(EIGHT_BILLION, gpu=settings))
        report.figure("generated_tokens_per_second_with_the_4_bit_kernel", fused)
        report.recommend_fastest("gpu.four_bit_generation", "false", {"true": round(dense / fused, 4)})


def _score(lab: Lab, report: Report, backbone: SharedBackbone, tokens: int) -> None:
    dataset = lab.dataset(backbone, ROWS, tokens)
    run = lab.trial("lora", backbone, dataset, rank=4)
    lab.collect()
    before = 0
    if lab.cuda:
        torch.cuda.reset_peak_memory_stats(lab.device)
        before = torch.cuda.memory_allocated(lab.device)
    seconds = lab.median_seconds(lambda: run.evaluate("validation"), 1, report)
    report.figure(f"tokens_per_second_scoring_{ROWS}x{tokens}", ROWS * tokens / seconds)
    if lab.require_gpu(report, "peak memory of scoring"):
        report.figure(f"peak_bytes_scoring_{ROWS}x{tokens}", torch.cuda.max_memory_allocated(lab.device) - before)


def tokens_per_second(lab: Lab, report: Report, backbone: SharedBackbone) -> float:
    """Return the tokens per second of greedy generation with the backbone alone, all prompts together."""
    random = np.random.default_rng(0)
    tokens = PROMPT_TOKENS if not lab.small else 8
    vocabulary = int(backbone.model.config.vocab_size)
    ids = torch.tensor(random.integers(3, vocabulary, (PROMPTS, tokens)), device=lab.device)
    settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "pad_token_id": 0}
    mask = torch.ones_like(ids)

    def generate() -> None:
        with torch.no_grad():
            backbone.model.generate(input_ids=ids, attention_mask=mask, **settings)  # type: ignore[operator]

    generate()
    return PROMPTS * NEW_TOKENS / lab.median_seconds(generate, 2, report)
