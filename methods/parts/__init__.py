"""Building blocks of methods, larger than a helper function; a method's own file says what it does with them.

- LoRA and its relatives: ``low_rank`` (parameters, targets), ``lora_layer`` (the forward pass), ``low_rank_init``
  (PiSSA, OLoRA, LoftQ), ``dora_layer``, ``adalora_budget``.
- Soft prompts: ``soft_prompt``, ``attention_extension`` (deep prompts), ``source_stage`` (multitask prompts).
- Hard prompts: ``language_model``, ``prompt_template``, ``prompted_model``.

Parts import each other and ``base``, and nothing else of this package.
"""
