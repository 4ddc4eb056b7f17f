"""Names that stand for many methods: ``peft:TYPE`` and ``compose:PART+PART``.

- ``peft_type`` builds the method of a `peft` type; ``peft_type_names`` lists the types and the refused ones,
  ``peft_type_params`` derives their parameters, ``peft_type_sizes`` fits block sizes to an architecture.
- ``compose`` builds the method of a composition; ``compose_names`` parses its name, ``compose_params`` holds its
  parameters, ``compose_combine`` makes one ``Attached`` out of the parts'.
"""
