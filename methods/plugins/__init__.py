"""Methods from files outside this package: ``loader`` imports them, ``check`` tries them on a ``tiny_model``."""
