"""A vector for every text, near those of the texts that belong to it; for retrieval, or for scored pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks._base import TaskType
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.embedding.loss import in_batch_loss, ranking_loss, text_numbers
from orchestrator.tasks.embedding.metrics import ranks
from orchestrator.tasks.embedding.rows import texts_of, tokenized
from orchestrator.tasks.embedding.section import METRICS, SCORED, TEXTS, EmbeddingTask, metrics_of
from orchestrator.tasks.inputs import ColumnKind, InputColumn
from orchestrator.tasks.pooling import embed, sentence_transformers_files
from orchestrator.tasks.regression_metrics import SPEARMAN
from orchestrator.tasks.tokens import in_table_order, pad
from orchestrator.tasks.trivial import TrivialPredictor, draws, with_column

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class Embedding(TaskType):
    """Any ``AutoModel`` that is an encoder or a decoder.

    Split tables hold ``anchor`` and ``positive``, and ``negative`` or ``score`` (float64) where the task has them.
    Tokenized tables hold all texts of a row in ``input_ids``, one after the other, and their ``lengths`` (list of
    int32). Predictions hold ``similarity``, the cosine of the row's pair, and either ``anchor`` (int64, the number of
    the first row with that anchor) and ``rank`` (int32, where the positive stands among all positives of the rows), or
    ``target``, the score, and ``predicted``, the similarity again.
    """

    section = EmbeddingTask
    metrics = METRICS
    auto_class = "AutoModel"
    peft_task_type = "FEATURE_EXTRACTION"
    text_columns = TEXTS
    input_columns = MappingProxyType({"anchor": InputColumn(example="Where do I find my invoice?")})
    pads_left = True
    is_divisible = False
    merged_note = (
        "`sentence_transformers.SentenceTransformer` loads the folder with the pooling that it was trained with."
    )

    def head_size(self, labels: int) -> int:
        """Return 0: a vector is made of hidden states."""
        return 0

    @property
    def scores_tokens(self) -> bool:
        """Whether its models give numbers for each token: a text has one vector."""
        return False

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the candidates in random order, or one similarity for all scored pairs."""
        if "rank" not in predictions.column_names:
            zeros = pa.array(np.zeros(predictions.num_rows))
            return (TrivialPredictor("one similarity for all pairs", (with_column(predictions, "predicted", zeros),)),)
        candidates = len(set(splits["test"]["positive"].to_pylist()))
        orders = [np.random.default_rng(seed) for seed in range(draws(predictions.num_rows))]
        ranks_of_draws = [order.integers(1, candidates, predictions.num_rows, endpoint=True) for order in orders]
        drawn = tuple(with_column(predictions, "rank", pa.array(rank.astype(np.int32))) for rank in ranks_of_draws)
        return (TrivialPredictor("the candidates in random order", drawn),)

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return that all texts have one vector, where the similarity of every pair is 1."""
        similarity = predictions["similarity"].to_numpy()
        return "one vector" if len(similarity) > 1 and np.abs(similarity - 1).max() <= 1e-6 else ""

    def refusal(self, config: PretrainedConfig) -> str:
        """Refuse encoder-decoders, whose two halves are trained for something else."""
        if config.is_encoder_decoder:
            return f"{config.model_type} models are encoder-decoders; embeddings need an encoder or a decoder"
        return ""

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that the rows allow."""
        # Models of tasks whose constants are not recorded were scored by the only metric of scored pairs.
        others = metrics_of(SCORED not in self.constants and SPEARMAN.name not in self.chosen)
        return tuple(metric for metric in super().computed if metric not in others)

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return similarities and scores, or the rank of each row's positive and 1, the best rank there is."""
        if "target" in predictions.column_names:
            return predictions["predicted"].to_pylist(), predictions["target"].to_pylist()
        return predictions["rank"].to_pylist(), [1] * predictions.num_rows

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return scores as similarities, or the best ranks."""
        if "score" in rows.column_names:
            return pa.table({"row": rows["row"], "predicted": rows["score"], "target": rows["score"]})
        return pa.table({"row": rows["row"], "rank": pa.array([1] * rows.num_rows, pa.int32())})

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids``, ``lengths``, and a ``score``; a long text loses its end."""
        return tokenized(rows, tokenizer, max_length)

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return all texts of the rows in one batch: the anchors, then the positives, then the negatives.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(texts, tokens)``; ``labels``, a number for each text that
            equal texts share, of shape ``(rows, texts per row)``; and ``scores`` of shape ``(rows,)`` if there are any.
        """
        import torch

        texts = texts_of(rows, indices)
        flat = [text for column in texts for text in column]
        numbers = torch.tensor(text_numbers(flat)).view(len(texts), len(indices)).T
        batch = {**pad(flat, pad_id, pad_left), "labels": numbers}
        if "score" in rows.column_names:
            batch["scores"] = torch.from_numpy(rows["score"].to_numpy()[indices]).float()
        return batch

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the vectors of all texts."""
        return embed(model, batch)

    def forward_shape(self, config: PretrainedConfig, batch: dict[str, Tensor]) -> tuple[int, ...]:
        """Return ``(texts, width)``."""
        return (len(batch["input_ids"]), config.get_text_config().hidden_size)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the batch as a whole: each row's depends on all others."""
        rows, texts = batch["labels"].shape
        vectors = embed(model, batch).view(texts, rows, -1)
        if "scores" in batch:
            return ranking_loss((vectors[0] * vectors[1]).sum(dim=-1), batch["scores"].to(vectors.device))
        return in_batch_loss(vectors, batch["labels"].to(vectors.device))

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return the number of rows."""
        return len(batch["labels"])

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return similarities, and ranks among the distinct positives of the batches' rows."""
        _, indices = in_table_order(batches)
        anchors, positives = (
            self._vectors(model, rows, batches, side, pad_id, pad_left) for side in ("anchor", "positive")
        )
        similarity = (anchors * positives).sum(axis=1).astype(np.float64)
        columns = {"row": rows["row"].take(pa.array(indices))}
        if "score" in rows.column_names:
            target = rows["score"].take(pa.array(indices))
            return pa.table({**columns, "target": target, "predicted": similarity, "similarity": similarity})
        texts = texts_of(rows, indices)
        numbers = np.array(text_numbers([*texts[0], *texts[1]])).reshape(2, -1)
        candidates, first_rows, own_positives = np.unique(numbers[1], return_index=True, return_inverse=True)
        _, first_anchors, anchor_of_row = np.unique(numbers[0], return_index=True, return_inverse=True)
        places = {int(number): place for place, number in enumerate(candidates)}
        itself = np.array([places.get(int(number), -1) for number in numbers[0]])
        first = first_anchors[anchor_of_row]
        # One vector per text: that of its first row, since padding changes the last digits.
        rank = ranks(anchors[first], positives[first_rows], own_positives, itself)
        columns["anchor"] = columns["row"].take(pa.array(first))
        return pa.table({**columns, "rank": rank, "similarity": similarity})

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``embedding``."""
        return {"embedding": "doubles"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the vector of each text."""
        vectors = self._vectors(model, rows, batches, "anchor", pad_id, pad_left)
        return pa.table({"embedding": pa.array(vectors.tolist(), pa.list_(pa.float64()))})

    reproducible_name = "similarity"

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the similarity of each pair."""
        similarity: NDArray[np.float64] = predictions["similarity"].to_numpy()
        return similarity[:, None]

    def example_code(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return lines that compute a vector."""
        return (
            "from orchestrator.tasks.pooling import embed",
            "",
            "with torch.no_grad():",
            "    embedding = embed(adapter.module, tokens)[0]",
            "print(embedding)",
        )

    def merged_files(self, model: nn.Module) -> dict[str, str]:
        """Return the files with which ``SentenceTransformer(folder)`` gives the same vectors."""
        return sentence_transformers_files(model)

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it makes vectors, and what they are for."""
        return "Turns a text into a vector; the cosine of two says how much the texts belong together"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return a number for each text, of shape ``(rows, 2)``, as if half of the texts were the others' positives."""
        import torch

        numbers = torch.arange(len(input_ids) - len(input_ids) % 2, device=input_ids.device)
        return numbers.view(2, -1).T

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch whose rows are pairs: every other token is the anchor's."""
        import torch

        def paired(tensor: Tensor) -> Tensor:
            even = tensor[:, : max(1, tensor.shape[1] - tensor.shape[1] % 2)]
            return torch.cat([even[:, ::2], even[:, even.shape[1] > 1 :: 2]])

        ids, mask = paired(input_ids), paired(attention_mask)
        return {"input_ids": ids, "attention_mask": mask, "labels": self.dummy_labels(ids, mask, labels)}

    def _vectors(
        self, model: nn.Module, rows: pa.Table, batches: Batches, side: str, pad_id: int, pad_left: bool
    ) -> NDArray[np.float32]:
        """Return the vectors of one text of each row, in the table's order, of shape ``(rows, width)``."""
        import torch

        vectors = []
        with torch.no_grad():
            for indices in batches:
                texts = texts_of(rows, indices)[TEXTS.index(side)]
                vectors.append(embed(model, pad(texts, pad_id, pad_left)).cpu().numpy())
        order, _ = in_table_order(batches)
        return np.concatenate(vectors)[order]
