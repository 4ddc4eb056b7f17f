"""The frozen backbone: quantized once, mapped without copying by every lane of a node, viewed by every trial.

``source`` finds a checkpoint, ``checkpoint`` quantizes it into one file (``weights``), ``store`` keeps that file under
its digest and ``publish`` puts it into a sweep's storage. ``shared`` maps the file and makes views of it, whose linear
layers are those of ``frozen``. ``pretrained`` does all of it in one call. ``architecture``, ``skeleton`` and ``shrink``
describe a backbone without its weights, for planning.
"""
