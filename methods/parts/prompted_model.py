"""Language models that read a hard prompt around every row, called like the bare model."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput

from methods.base.spec import MethodError
from methods.parts.prompt_template import Words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NONE = -1


class Prompted(nn.Module):
    """A language model and the words around its rows.

    Args:
        model: predicts the next token.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.words: dict[str, Tensor] = {}
        self._places = "position_ids" in inspect.signature(model.forward).parameters

    def say(self, words: Words) -> None:
        """Take these words."""
        width = max(map(len, words.classes), default=0)
        classes = [[*word, *[NONE] * (width - len(word))] for word in words.classes]
        found = {
            "before": torch.tensor(words.before, dtype=torch.long),
            "after": torch.tensor(words.after, dtype=torch.long),
            "blank": torch.tensor(words.blank, dtype=torch.long),
            "classes": torch.tensor(classes, dtype=torch.long),
            "ends": torch.tensor([words.opening, words.closing]),
        }
        self.take(found)

    def take(self, words: dict[str, Tensor]) -> None:
        """Take words as tensors of token ids, as they are saved."""
        self.words = words

    def _around(self, ids: Tensor, mask: Tensor, *, left: bool = True) -> tuple[Tensor, Tensor]:
        """Rows of shape ``(rows, tokens)`` between the words, padded anew on one side, and their mask."""
        place, ends = mask.cumsum(dim=1), self.words["ends"].tolist()
        own = (mask == 1) & (place > ends[0]) & (place <= mask.sum(dim=1, keepdim=True) - ends[1])
        before, after = (self.words[name].to(ids.device).expand(len(ids), -1) for name in ("before", "after"))
        ids = torch.cat([before, ids, after], dim=1)
        mask = torch.cat([torch.ones_like(before), own.long(), torch.ones_like(after)], dim=1)
        order = mask.argsort(dim=1, stable=True, descending=not left)
        width = int(mask.sum(dim=1).max())
        order = order[:, -width:] if left else order[:, :width]
        return ids.gather(1, order), mask.gather(1, order)

    def _logits(self, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
        """What follows each of the last ``keep`` tokens, shape ``(rows, keep, vocabulary)``, in float32."""
        places = {"position_ids": (mask.cumsum(dim=1) - 1).clamp_min(0)} if self._places else {}
        found: Tensor = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep, **places
        ).logits
        return found.float()


class PromptedClassifier(Prompted):
    """Scores a class by the log-probability of its word after the prompt.

    With calibration, less that after a prompt whose text has no content (Zhao et al., 2021, arXiv:2102.09690).
    """

    def __init__(self, model: PreTrainedModel, calibration: bool) -> None:
        super().__init__(model)
        self._calibration = calibration
        self._both = bool(getattr(model.config, "is_encoder_decoder", False))
        self._bias: Tensor | None = None

    def take(self, words: dict[str, Tensor]) -> None:
        """Take words as tensors of token ids, as they are saved."""
        super().take(words)
        self._bias = None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """``input_ids`` of shape ``(rows, tokens)`` to ``logits`` of shape ``(rows, labels)``.

        Raises:
            MethodError: if there are no words yet.
        """
        if not self.words:
            raise MethodError("the prompt has no words: it was attached without the task's and none were loaded")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        scores = self._scores(input_ids, mask)
        if self._calibration:
            scores = scores - self._preference(input_ids)
        loss = None if labels is None else F.cross_entropy(scores, labels)
        return SequenceClassifierOutput(loss=loss, logits=scores)

    @torch.no_grad()
    def _preference(self, like: Tensor) -> Tensor:
        """The scores of a text without content, shape ``(1, labels)``; the same for all rows."""
        if self._bias is None:
            opening, closing = self.words["ends"].tolist()
            # what is there of special tokens goes anyway, so any token does
            blank = F.pad(self.words["blank"].to(like.device)[None], (opening, closing))
            self._bias = self._scores(blank, torch.ones_like(blank)).log_softmax(dim=1)
        return self._bias

    def _scores(self, ids: Tensor, mask: Tensor) -> Tensor:
        ids, mask = self._around(ids, mask, left=not self._both)
        words = [word[word != NONE].to(ids.device) for word in self.words["classes"]]
        if all(len(word) == 1 for word in words):
            return self._after(ids, mask, words[0][:0])[:, 0, torch.cat(words)]
        places = torch.arange(max(map(len, words)), device=ids.device)
        found = [self._after(ids, mask, word[:-1])[:, places[: len(word)], word].sum(dim=1) for word in words]
        return torch.stack(found, dim=1)

    def _after(self, ids: Tensor, mask: Tensor, stem: Tensor) -> Tensor:
        """Log-probabilities of what follows the prompt and each token of ``stem``, ``(rows, 1 + stem, vocabulary)``."""
        stems = stem.expand(len(ids), -1)
        if self._both:
            start = torch.full_like(ids[:, :1], self.config.decoder_start_token_id)
            decoder = torch.cat([start, stems], dim=1)
            found: Tensor = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder).logits
            return found.float().log_softmax(dim=-1)
        longer = torch.cat([mask, torch.ones_like(stems)], dim=1)
        return self._logits(torch.cat([ids, stems], dim=1), longer, 1 + len(stem)).log_softmax(dim=-1)


class PromptedLanguageModel(Prompted):
    """Continues a row as if the examples had come before it; without words, as the bare model does."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> CausalLMOutput:
        """``input_ids`` of shape ``(rows, tokens)`` to ``logits`` of shape ``(rows, tokens, vocabulary)``.

        Rows may be padded on either side.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids, whole = self._shown(input_ids, mask)
        logits = self._logits(ids, whole, input_ids.shape[1])
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])
        return CausalLMOutput(loss=loss, logits=logits)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        """The rows, padded on the left, with what the model writes after them."""
        ids, mask = self._around(input_ids, attention_mask) if self.words else (input_ids, attention_mask)
        written: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, **settings)  # type: ignore[operator]
        return torch.cat([input_ids, written[:, ids.shape[1] :]], dim=1)

    def _shown(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The rows after the examples, so that the last columns are still those of the rows."""
        if not self.words:
            return ids, mask
        if not bool(mask[:, 0].all()):  # padded on the left
            return self._around(ids, mask)
        opening = int(self.words["ends"][0])  # which the examples already begin with
        before = self.words["before"].to(ids.device).expand(len(ids), -1)
        whole = torch.cat([torch.ones_like(before), mask[:, opening:]], dim=1)
        return torch.cat([before, ids[:, opening:]], dim=1), whole
