"""Conversations, prompts with completions, texts: what is to be written is trained."""

from orchestrator.tasks.causal_lm.section import CausalLMTask
from orchestrator.tasks.causal_lm.task_type import CausalLM

__all__ = ["CausalLM", "CausalLMTask"]
