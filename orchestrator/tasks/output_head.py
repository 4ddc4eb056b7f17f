"""A language model's last hidden states, and its head apart from them, to compute logits only where they are needed.

A head is everything that a model does after its last block's output: the output embeddings, and what an architecture
puts after them (Gemma 2 caps logits, Cohere and Granite scale them). None of that is repeated here. The model's own
forward pass runs twice, once above the blocks' output with no token in it, and then above the states of the chosen
tokens, with the blocks replaced by a function that returns these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_changes_logits: WeakSet[nn.Module] = WeakSet()
"""Models that return other logits than the language model inside them, so that they must be called as a whole."""


@dataclass(frozen=True)
class OutputHead:
    """What computes logits.

    Args:
        logits: Maps states of shape ``(tokens, width)`` to logits of shape ``(tokens, vocabulary)``.
        vocabulary: Number of logits of a token.
        recomputable: Whether it may be run again in the backward pass. A frozen layer in it forbids that: in a pack it
            waits for other trials, whose layers would be recomputed in the place of this trial's.
    """

    logits: Callable[[Tensor], Tensor]
    vocabulary: int
    recomputable: bool = True


def states_and_head(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, OutputHead]:
    """Run a language model up to its head.

    Args:
        model: Language model, with or without wrappers.
        inputs: What it is called with.

    Returns:
        States of shape ``(rows, positions, width)``, and the head that reads them. Soft prompts have positions of their
        own before those of the tokens. Where the model's head cannot be told apart, the states are the logits, and the
        head returns them unchanged.
    """
    decoder = None if model in _changes_logits else _decoder(model)
    if decoder is None:
        return _whole(model(**inputs).logits)
    recorder = _Recorder(decoder)
    with recorder.recording():
        logits = model(**inputs).logits
    recorded = recorder.recorded
    if recorded is None:  # the architecture's forward pass calls none of the modules that were looked for
        return _whole(logits)
    if logits is not recorded.placeholder:
        _changes_logits.add(model)
        return _whole(model(**inputs).logits)
    head = OutputHead(recorder.logits, recorded.placeholder.shape[-1], not _has_linear_beside(decoder))
    return recorded.states, head


def _whole(logits: Tensor) -> tuple[Tensor, OutputHead]:
    return logits, OutputHead(lambda chosen: chosen, logits.shape[-1])


@dataclass(frozen=True)
class _Recorded:
    """The states of a pass, and what the language model returned in the place of logits."""

    states: Tensor
    placeholder: Tensor


class _Recorder:
    """Runs a language model's blocks without its head, and its head without the blocks.

    Args:
        decoder: Language model of transformers.
    """

    def __init__(self, decoder: PreTrainedModel) -> None:
        self._decoder, self._blocks = decoder, _block_modules(decoder)
        self._output_class: Any = None
        self._is_inside = False
        self._states: list[Tensor] = []
        self.recorded: _Recorded | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the states of the calls inside, which return a placeholder for logits that takes no memory."""
        with ExitStack() as stack:
            for module in self._blocks:
                stack.enter_context(replaced_forward(module, self._record))
            stack.enter_context(replaced_forward(self._decoder, self._without_logits))
            yield

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of states of shape ``(tokens, width)``."""
        output = self._output_class(last_hidden_state=states[None])
        ids = states.new_zeros(1, len(states)).long()
        is_encoder_decoder = self._decoder.config.is_encoder_decoder
        inputs = {"encoder_outputs": (states[None],), "decoder_input_ids": ids} if is_encoder_decoder else {}
        with ExitStack() as stack:
            for module in self._blocks:
                stack.enter_context(replaced_forward(module, lambda *_, **__: output))
            # Not a call of the module: hooks around it have seen this pass already.
            logits: Tensor = self._decoder.forward(**(inputs or {"input_ids": ids})).logits
        return logits[0]

    def _record(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._is_inside:  # the decoder inside an encoder-decoder
            return forward(*args, **kwargs)
        self._is_inside = True
        try:
            output = forward(*args, **kwargs)
        finally:
            self._is_inside = False
        if getattr(output, "last_hidden_state", None) is not None:
            self._states, self._output_class = [output.last_hidden_state], type(output)
            output.last_hidden_state = output.last_hidden_state[:, :0]
        return output

    def _without_logits(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._states.clear()
        output = forward(*args, **kwargs)
        for states in self._states:
            nothing = output.logits.detach()
            self.recorded = _Recorded(states, nothing.new_zeros(1).expand(*states.shape[:2], nothing.shape[-1]))
            output.logits = self.recorded.placeholder
        self._states.clear()
        return output


def _decoder(model: nn.Module) -> PreTrainedModel | None:
    """Return the language model of transformers inside any wrappers."""
    from transformers import PreTrainedModel

    modules = (module for module in model.modules() if isinstance(module, PreTrainedModel))
    return next((module for module in modules if module.get_output_embeddings() is not None), None)


def output_embeddings(model: nn.Module) -> nn.Module | None:
    """Return the output embeddings of the language model inside any wrappers; ``None`` if it is none."""
    decoder = _decoder(model)
    return None if decoder is None else decoder.get_output_embeddings()


def _block_modules(decoder: PreTrainedModel) -> list[nn.Module]:
    """Return the modules of which a language model's forward pass calls one, to read its output."""
    candidates = [decoder.base_model, decoder.get_decoder()]
    return [module for module in dict.fromkeys(candidates) if module is not decoder]


def _has_linear_beside(decoder: PreTrainedModel) -> bool:
    """Return whether the head has linear layers before its output embeddings, as BERT's has."""
    from torch import nn

    parts = [*_block_modules(decoder), decoder.get_output_embeddings()]
    known = {id(module) for part in parts for module in part.modules()}
    return any(isinstance(module, nn.Linear) and id(module) not in known for module in decoder.modules())


@contextmanager
def replaced_forward(module: nn.Module, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let a module call ``replacement`` with its own forward function and the arguments."""
    forward, is_its_own = module.forward, "forward" in vars(module)
    module.forward = wraps(forward)(partial(replacement, forward))
    try:
        yield
    finally:
        if is_its_own:
            module.forward = forward
        else:
            del module.forward
