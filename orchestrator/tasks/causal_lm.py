"""One completion per prompt: cross-entropy of the completion's tokens, perplexity and exact match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks._base import Evaluation
from orchestrator.tasks.tokens import INPUTS, device_of, integers, pad, ragged, token_column

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
METRICS = {
    "perplexity": Metric(name="perplexity", direction="minimize", bounds=(1.0, float("inf")), label="perplexity"),
    "exact_match": Metric(name="exact_match", label="exact match"),
}


@dataclass(frozen=True)
class CausalLM:
    """Any ``AutoModelForCausalLM``.

    Split tables hold ``prompt`` and ``completion``. Predictions hold ``nll`` (float64, of all the completion's tokens),
    ``tokens`` (int32, how many those are) and ``exact`` (whether greedy generation gave the completion; null where
    nothing was generated).

    Args:
        generates: whether ``evaluate`` generates, for ``exact_match``.
        max_new_tokens: how much it generates at most.
        tokenizer: what decodes it.
    """

    generates: bool = False
    max_new_tokens: int = 32
    tokenizer: PreTrainedTokenizerBase | None = None
    name: Literal["causal-lm"] = "causal-lm"
    auto_class: str = "AutoModelForCausalLM"
    metrics: tuple[str, ...] = ("perplexity", "exact_match")

    def metric(self, name: str) -> Metric:
        """Return the metric of that name."""
        return METRICS[name]

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Columns ``row``, ``input_ids`` (prompt, completion, end of sequence) and ``prompt_length``.

        What is too long loses the beginning of its prompt; only a completion that alone is too long loses its end.
        """
        opening, ids, prompt_lengths = _opening(tokenizer), [], []
        for batch in rows.select(["prompt", "completion"]).to_batches(max_chunksize=4096):
            prompts, completions = (_plain_ids(tokenizer, batch[name]) for name in ("prompt", "completion"))
            for prompt, completion in zip(prompts, completions, strict=True):
                end = [*completion, tokenizer.eos_token_id][: max_length - len(opening) - 1]
                start = [*opening, *prompt[-(max_length - len(opening) - len(end)) :]]
                ids.append([*start, *end])
                prompt_lengths.append(len(start))
        lengths = pa.array(prompt_lengths, pa.int32())
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), "prompt_length": lengths})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask``, ``labels`` of shape ``(rows, tokens)``; -100 outside the completions.

        Always padded on the right, whatever ``pad_left`` says: positions then count from the first token, and soft
        prompts stand next to it, so that a row's likelihood does not depend on its batch. Generation pads by itself.
        """
        import torch

        sequences, prompts = _sequences(rows, indices)
        batch = pad(sequences, pad_id, left=False)
        # Told by position and never by the padding token, which is the end-of-sequence token of many tokenizers.
        position = batch["attention_mask"].cumsum(dim=1)
        completion = (position > torch.tensor(prompts)[:, None]) & (batch["attention_mask"] == 1)
        return {**batch, "labels": batch["input_ids"].where(completion, torch.tensor(IGNORED))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over all completion tokens of the batch."""
        return self.token_losses(model, batch).mean()

    def token_losses(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of every token that has a label, in nats; shape ``(tokens,)``."""
        return _token_losses(model, batch)[0]

    def evaluate(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Sequence[NDArray[np.int64]],
        pad_id: int,
        pad_left: bool = False,
    ) -> Evaluation:
        """Likelihood of the completions, and where asked for, whether generation gives them.

        Raises:
            ValueError: if it is to generate and has no tokenizer.
        """
        import torch

        nll, tokens = [], []
        exact: list[bool | None] = []
        with torch.no_grad():
            for indices in batches:
                losses, counted = _token_losses(model, self.collate(rows, indices, pad_id, pad_left))
                lines = counted.nonzero()[:, 0].cpu().numpy()
                nll.append(np.bincount(lines, losses.double().cpu().numpy(), minlength=len(indices)))
                tokens.append(np.bincount(lines, minlength=len(indices)))
                exact += self._exact(model, rows, indices, pad_id) if self.generates else [None] * len(indices)
        indices = np.concatenate(batches)
        order = np.argsort(indices, kind="stable")
        columns = {
            "row": rows["row"].take(pa.array(indices[order])),
            "nll": pa.array(np.concatenate(nll)[order]),
            "tokens": pa.array(np.concatenate(tokens)[order].astype(np.int32)),
            "exact": pa.array([exact[i] for i in order], pa.bool_()),
        }
        predictions, metrics = pa.table(columns), self.metrics if self.generates else ("perplexity",)
        return Evaluation({metric: self.score(metric, predictions) for metric in metrics}, predictions)

    def score(self, metric: str, predictions: pa.Table) -> float:
        """``perplexity`` per completion token over all rows, or the share of rows with an ``exact_match``."""
        return float(self.score_many(metric, predictions, np.arange(predictions.num_rows)[None])[0])

    def score_many(self, metric: str, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """The metric of each sample in ``draws`` of shape ``(samples, rows)``."""
        if metric == "perplexity":
            nll, tokens = (predictions[name].to_numpy() for name in ("nll", "tokens"))
            scores: NDArray[np.float64] = np.exp(nll[draws].sum(axis=1) / tokens[draws].sum(axis=1))
            return scores
        if metric == "exact_match" and not predictions["exact"].null_count:
            exact: NDArray[np.float64] = predictions["exact"].to_numpy()[draws].mean(axis=1)
            return exact
        raise ValueError(f"these predictions have no metric {metric!r}; known: {', '.join(self.metrics)}")

    def generate(self, model: nn.Module, prompts: Sequence[NDArray[np.int32]], pad_id: int) -> list[str]:
        """What the model writes after each prompt (token ids), greedily, without surrounding white space.

        Raises:
            ValueError: if there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("a tokenizer is needed to generate")
        import torch

        batch = {name: tensor.to(device_of(model)) for name, tensor in pad(prompts, pad_id, left=True).items()}
        width = batch["input_ids"].shape[1]
        settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}
        ends = {"eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": pad_id}
        with torch.no_grad():
            written = model.generate(**batch, **settings, **ends, max_new_tokens=self.max_new_tokens)  # type: ignore[operator]
        return [text.strip() for text in self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)]

    def _exact(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> list[bool]:
        sequences, prompts = _sequences(rows, indices)
        starts = [sequence[:length] for sequence, length in zip(sequences, prompts, strict=True)]
        written = self.generate(model, starts, pad_id)
        ends = [sequence[length:].tolist() for sequence, length in zip(sequences, prompts, strict=True)]
        assert self.tokenizer is not None  # generate() has asked for it
        wanted = self.tokenizer.batch_decode(ends, skip_special_tokens=True)
        return [text == goal.strip() for text, goal in zip(written, wanted, strict=True)]


def _sequences(rows: pa.Table, indices: NDArray[np.int64]) -> tuple[list[NDArray[np.int32]], NDArray[np.integer]]:
    values, starts = ragged(rows)
    return [values[starts[i] : starts[i + 1]] for i in indices], integers(rows, "prompt_length")[indices]


def _token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of every completion token, shape ``(tokens,)``, and where those are, shape ``(rows, tokens - 1)``."""
    from torch.nn import functional as F

    device = device_of(model)
    inputs = {name: batch[name].to(device) for name in INPUTS if name in batch}
    targets = batch["labels"][:, 1:].to(device)
    counted = targets != IGNORED
    # Soft prompts put logits of their own before those of the tokens; what precedes a target is what predicts it.
    logits = model(**inputs).logits[:, -targets.shape[1] - 1 : -1][counted].float()
    return F.cross_entropy(logits, targets[counted], reduction="none"), counted


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: pa.Array) -> list[list[int]]:
    settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids: list[list[int]] = tokenizer(texts.to_pylist(), **settings)["input_ids"]
    return ids


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer itself puts before a text."""
    special: list[int] = tokenizer("")["input_ids"]
    return [token for token in special if token == tokenizer.bos_token_id][:1]
