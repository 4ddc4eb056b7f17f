"""Names that stand for many methods: ``peft:TYPE`` and ``compose:PART+PART``."""
