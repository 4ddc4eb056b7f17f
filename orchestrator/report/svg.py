"""SVG elements, with every attribute and every text escaped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup

STYLE = Path(__file__).with_name("charts.css")


def element(name: str, *inside: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    Args:
        name: tag of the element; the only argument that is not escaped.
        inside: texts or elements.
        attributes: attributes; ``_`` stands for ``-``, and one at the end is removed (``class_``).
    """
    escaped = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(inside)
    return Markup(f"<{name}") + escaped + (Markup(">") + content + Markup(f"</{name}>") if inside else Markup("/>"))


def drawing(width: float, height: float, label: str, inside: Iterable[str], *, kind: str) -> Markup:
    """Return a scalable drawing, with a label for screen readers."""
    return element(
        "svg",
        element("title", label),
        *inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_=f"chart {kind}",
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str | None = None) -> Markup:
    """Return a text at a position."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def path(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """Return a line through points."""
    return element("polyline", points=" ".join(f"{_short(x)},{_short(y)}" for x, y in points), class_=kind)


def standalone(svg: str) -> str:
    """Return a drawing as the content of a separate file, with its style sheet."""
    style = element("style", Markup(STYLE.read_text(encoding="utf-8")))
    head, bracket, rest = svg.partition(">")
    return f"{head}{bracket}{style}{rest}"


def _short(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.1f}".removesuffix(".0")
