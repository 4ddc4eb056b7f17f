"""Language models that read a hard prompt around every row; they are called like the bare model."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput

from methods.base.spec import MethodError
from methods.parts.prompt_template import PromptTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_TOKEN = -1  # fills the rows of "classes" up to one length


class PromptedModel(nn.Module):
    """A language model and the prompt around its rows.

    Args:
        model: model that predicts the next token.
        calibration: whether what scores a text without content has is subtracted from scores.
    """

    def __init__(self, model: PreTrainedModel, calibration: bool) -> None:
        super().__init__()
        self.model, self.config, self._calibration = model, model.config, calibration
        self.prompt: dict[str, Tensor] = {}
        self._takes_position_ids = "position_ids" in inspect.signature(model.forward).parameters

    def set_prompt(self, tokens: PromptTokens) -> None:
        """Use this prompt from now on."""
        width = max(map(len, tokens.classes), default=0)
        classes = [[*word, *[NO_TOKEN] * (width - len(word))] for word in tokens.classes]
        tensors = {
            "before": torch.tensor(tokens.before, dtype=torch.long),
            "after": torch.tensor(tokens.after, dtype=torch.long),
            "blank": torch.tensor(tokens.blank, dtype=torch.long),
            "classes": torch.tensor(classes, dtype=torch.long),
            "ends": torch.tensor([tokens.opening, tokens.closing]),
        }
        self.load_prompt(tensors)

    def load_prompt(self, tensors: dict[str, Tensor]) -> None:
        """Use the prompt of these tensors of token ids from now on; they are what an adapter's folder holds."""
        self.prompt = tensors

    def _surround(self, ids: Tensor, mask: Tensor, *, pad_left: bool = True) -> tuple[Tensor, Tensor]:
        """Put the prompt around rows of shape ``(rows, tokens)``, move the padding to one side, and return the mask."""
        position, (opening, closing) = mask.cumsum(dim=1), self.prompt["ends"].tolist()
        content = (mask == 1) & (position > opening) & (position <= mask.sum(dim=1, keepdim=True) - closing)
        before, after = (self.prompt[name].to(ids.device).expand(len(ids), -1) for name in ("before", "after"))
        ids = torch.cat([before, ids, after], dim=1)
        mask = torch.cat([torch.ones_like(before), content.long(), torch.ones_like(after)], dim=1)
        order = mask.argsort(dim=1, stable=True, descending=not pad_left)
        width = int(mask.sum(dim=1).max())
        order = order[:, -width:] if pad_left else order[:, :width]
        return ids.gather(1, order), mask.gather(1, order)

    def _logits(self, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Return the model's logits after each of the last ``keep`` tokens, shape ``(rows, keep, vocabulary)``."""
        positions = {"position_ids": (mask.cumsum(dim=1) - 1).clamp_min(0)} if self._takes_position_ids else {}
        logits: Tensor = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep, **positions
        ).logits
        return logits


class PromptedClassifier(PromptedModel):
    """A classifier whose score of a class is the log-probability of the class's word after the prompt.

    With calibration, the log-probability after a prompt whose text has no content is subtracted (Zhao et al., 2021,
    arXiv:2102.09690).
    """

    def __init__(self, model: PreTrainedModel, calibration: bool) -> None:
        super().__init__(model, calibration)
        self._is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        self._cached_bias: Tensor | None = None

    def load_prompt(self, tensors: dict[str, Tensor]) -> None:
        """Use the prompt of these tensors of token ids from now on; they are what an adapter's folder holds."""
        super().load_prompt(tensors)
        self._cached_bias = None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Map ``input_ids`` of shape ``(rows, tokens)`` to ``logits`` of shape ``(rows, labels)``.

        Raises:
            MethodError: if there is no prompt yet.
        """
        if not self.prompt:
            raise MethodError("the prompt has no words: attach it with the task's words, or load an adapter")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        scores = self._scores(input_ids, mask)
        if self._calibration:
            scores = scores - self._bias(input_ids)
        loss = None if labels is None else F.cross_entropy(scores, labels)
        return SequenceClassifierOutput(loss=loss, logits=scores)

    @torch.no_grad()
    def _bias(self, input_ids: Tensor) -> Tensor:
        """Return the scores of a text without content, shape ``(1, labels)``; they are the same for all rows."""
        if self._cached_bias is None:
            opening, closing = self.prompt["ends"].tolist()
            # zeros stand for the special tokens at the ends, which _surround removes
            blank = F.pad(self.prompt["blank"].to(input_ids.device)[None], (opening, closing))
            self._cached_bias = self._scores(blank, torch.ones_like(blank)).log_softmax(dim=1)
        return self._cached_bias

    def _scores(self, ids: Tensor, mask: Tensor) -> Tensor:
        ids, mask = self._surround(ids, mask, pad_left=not self._is_encoder_decoder)
        words = [word[word != NO_TOKEN].to(ids.device) for word in self.prompt["classes"]]
        if all(len(word) == 1 for word in words):
            return self._log_probabilities(ids, mask, words[0][:0])[:, 0, torch.cat(words)]
        positions = torch.arange(max(map(len, words)), device=ids.device)
        scores = [
            self._log_probabilities(ids, mask, word[:-1])[:, positions[: len(word)], word].sum(dim=1) for word in words
        ]
        return torch.stack(scores, dim=1)

    def _log_probabilities(self, ids: Tensor, mask: Tensor, stem: Tensor) -> Tensor:
        """Return log-probabilities after the prompt and after each token of ``stem``, ``(rows, 1 + stem, vocabulary)``.

        Args:
            ids: rows with the prompt around them, of shape ``(rows, tokens)``.
            mask: their mask.
            stem: all tokens of a class's word but the last.
        """
        stems = stem.expand(len(ids), -1)
        if self._is_encoder_decoder:
            start = torch.full_like(ids[:, :1], self.config.decoder_start_token_id)
            decoder = torch.cat([start, stems], dim=1)
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder).logits
            return logits.float().log_softmax(dim=-1)
        longer = torch.cat([mask, torch.ones_like(stems)], dim=1)
        return self._logits(torch.cat([ids, stems], dim=1), longer, 1 + len(stem)).float().log_softmax(dim=-1)


class PromptedLanguageModel(PromptedModel):
    """A language model that continues a row as if the examples preceded it; without a prompt, the bare model."""

    @property
    def blank_prompt(self) -> Tensor | None:
        """Token ids of the prompt without content, whose scores calibrate those of others; ``None`` without it."""
        blank = self.prompt.get("blank")
        return blank if self._calibration and blank is not None and len(blank) else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> CausalLMOutput:
        """Map ``input_ids`` of shape ``(rows, tokens)`` to ``logits`` of shape ``(rows, tokens, vocabulary)``.

        Rows may be padded on either side.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prompted_ids, prompted_mask = self._prepend_examples(input_ids, mask)
        logits = self._logits(prompted_ids, prompted_mask, input_ids.shape[1])
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].float().transpose(1, 2), labels[:, 1:])
        return CausalLMOutput(loss=loss, logits=logits)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **settings: Any) -> Tensor:
        """Return the rows, which must be padded on the left, with the generated tokens after them."""
        ids, mask = self._surround(input_ids, attention_mask) if self.prompt else (input_ids, attention_mask)
        output: Tensor = self.model.generate(input_ids=ids, attention_mask=mask, **settings)  # type: ignore[operator]
        return torch.cat([input_ids, output[:, ids.shape[1] :]], dim=1)

    def _prepend_examples(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put the examples before the rows, whose tokens stay in the last columns, and return ids and mask."""
        if not self.prompt:
            return ids, mask
        if not bool(mask[:, 0].all()):  # padded on the left
            return self._surround(ids, mask)
        opening = int(self.prompt["ends"][0])  # the examples begin with these special tokens already
        before = self.prompt["before"].to(ids.device).expand(len(ids), -1)
        mask = torch.cat([torch.ones_like(before), mask[:, opening:]], dim=1)
        return torch.cat([before, ids[:, opening:]], dim=1), mask
