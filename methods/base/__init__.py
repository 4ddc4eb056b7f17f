"""The contract and the tools that any method may need.

- ``spec``: the contract. ``MethodSpec`` is what a method declares, ``Attached`` what ``attach`` returns.
- ``peft_adapter``: attach, save, load and merge a configuration of `peft`.
- ``trainable``: the same for methods that `peft` does not implement; trainable copies, the head, float32.
- ``architecture``: the blocks of any transformer, and the roles of their linear layers.
- ``adapter_folder``: the files of a saved adapter.
- ``position_ids``: makes a decoder count real tokens only, whatever padding precedes them; every backbone gets it.
- ``lazy_weights``, ``mixed_precision``: how `peft` reads packed layers, and how unpacked ones train.

Nothing here imports a method, a family or a plugin.
"""
