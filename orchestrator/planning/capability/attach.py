"""Attach methods to backbones on the meta device, where tensors have shapes and no data, and to real ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from methods.base.spec import Attached, MethodError, MethodSpec
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import describe_error

MAX_WIDTH = 2048  # decomposing a wider matrix takes seconds, and every layer has several


class WeightsNeededError(MethodError):
    """Attaching a method needs values of backbone weights that are too large to be replaced by random ones."""


def attach(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> Attached:
    """Attach a method to a new view of a backbone.

    If the backbone is on the meta device, the method's own tensors are made there too, which is fast at any size. A few
    methods compute with their tensors while they are attached; these are attached again by :func:`attach_with_data`.

    Args:
        spec: the method.
        params: its configuration.
        backbone: the backbone.

    Raises:
        MethodError: if the method refuses the configuration, or fails.
    """
    typed = spec.params_type.from_dict(params)
    if backbone.model.device.type == "meta":
        try:
            with isolated(), torch.device("meta"):
                return spec.attach(backbone.view(0), typed, backbone.context)
        except Exception as error:
            if "meta" in str(error).lower() and _width(backbone) > MAX_WIDTH:
                line = f"{spec.name} computes with weights of {_width(backbone)} columns to be attached"
                raise WeightsNeededError(line) from error
    return attach_with_data(spec, params, backbone)


def attach_with_data(spec: MethodSpec[Any], params: Mapping[str, Any], backbone: SharedBackbone) -> Attached:
    """Attach a method whose own tensors have data, even if those of the backbone are on the meta device.

    Args:
        spec: the method.
        params: its configuration.
        backbone: the backbone.

    Raises:
        MethodError: if the method refuses the configuration, or fails.
    """
    typed = spec.params_type.from_dict(params)
    with isolated(), as_method_error("attaching it fails"):
        return spec.attach(backbone.view(0), typed, backbone.context)


def _width(backbone: SharedBackbone) -> int:
    width: int = backbone.model.config.get_text_config().hidden_size
    return width


@contextmanager
def as_method_error(failure: str) -> Iterator[None]:
    """Turn any exception into a ``MethodError`` of one line; a method's own ``MethodError`` is raised unchanged."""
    try:
        yield
    except MethodError:
        raise
    except Exception as error:
        raise MethodError(f"{failure}: {describe_error(error)}") from error


@contextmanager
def isolated() -> Iterator[None]:
    """Use one thread, a fixed seed and no warnings, and restore the caller's state at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second thread only slows down computations this small
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
