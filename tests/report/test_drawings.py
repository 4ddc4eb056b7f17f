"""Axes, points, fronts and labels."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.common.units import number
from orchestrator.report.curves import panels
from orchestrator.report.scales import Scale
from orchestrator.report.scatter import Point, decimals, front, scatter
from orchestrator.report.svg import element, standalone

ACCURACY = Metric(name="accuracy", label="accuracy")
LOSS = Metric(name="loss", direction="minimize")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ((0.5, 0.9), False),
        ((3.0, 3.0), False),
        ((-2.0, 0.0), False),
        ((0.35, 0.86), False),
        ((), False),
        ((1e3, 5e7), True),
        ((30.0, 41.0), True),
        ((), True),
    ],
)
def test_scale_holds_all_values_and_has_round_ticks(values: tuple[float, ...], log: bool) -> None:
    scale = Scale.over(values, 10.0, 110.0, log=log)
    assert all(10 <= scale(value) <= 110 for value in values)
    assert 2 <= len(scale.ticks(3)) <= 6
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(scale.low <= tick <= scale.high * (1 + 1e-9) for tick in ticks)
    assert all(re.fullmatch(r"-?[0-9]{1,3}0*", str(round(tick * 1000))) for tick in ticks)


def test_logarithmic_scale_spaces_equal_ratios_equally() -> None:
    scale = Scale(1.0, 100.0, 0.0, 10.0, log=True)
    assert scale(10.0) == pytest.approx(5.0)


def test_tick_decimals_make_ticks_distinct() -> None:
    assert decimals([0.80, 0.85, 0.90]) == 2
    assert decimals([100.0, 200.0]) == 0
    assert decimals([0.5]) == 0


def test_pareto_front_holds_points_beaten_in_neither() -> None:
    points = [
        Point(label=str(n), cost=c, score=s)
        for n, (c, s) in enumerate([(1, 0.5), (2, 0.4), (3, 0.8), (3, 0.9), (9, 0.9)])
    ]
    assert [p.label for p in front(points, ACCURACY)] == ["0", "3"]
    assert [p.label for p in front(points, LOSS)] == ["0", "1"]


def test_scatter_labels_do_not_overlap() -> None:
    names = ["lora", "adapter", "ia3", "prefix", "bitfit", "prompt", "linear_probe", "compose:prefix+adapter"]
    places = [(1e3, 0.80), (1.05e3, 0.801), (5e4, 0.60), (5e4, 0.602), (2e5, 0.9), (2e5, 0.7), (1e6, 0.55), (1e6, 0.85)]
    points = [Point(label=name, cost=c, score=s) for name, (c, s) in zip(names, places, strict=True)]
    drawn = ET.fromstring(scatter(points, cost="parameters", score="accuracy", cost_text=number, metric=ACCURACY))
    boxes = []
    for text in drawn.iter(f"{SVG}text"):
        if "label" in text.get("class", ""):
            x, y = float(text.get("x", "")), float(text.get("y", ""))
            boxes.append((x, y - 10, x + 6.2 * len(text.text or ""), y + 2))
    assert len(boxes) == len(names)
    assert all(box[0] >= 0 and box[2] <= 345 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


def test_curves_share_their_axes_and_mark_the_best() -> None:
    records = [
        TrialRecord(key=TrialKey("t/lora", 0), params={}, state="complete", values={50: 0.6, 100: 0.8}),
        TrialRecord(key=TrialKey("t/lora", 1), params={}, state="pruned", values={50: 0.5}),
        TrialRecord(key=TrialKey("t/ia3", 0), params={}, state="failed", values={50: float("nan")}),
        TrialRecord(key=TrialKey("t/adapter", 0), params={}, state="complete", values={50: 0.7, 100: 0.9}),
    ]
    found = panels(records, metric=ACCURACY, steps=100)
    assert list(found) == ["adapter", "lora"]
    lora, adapter = (ET.fromstring(found[name]) for name in ("lora", "adapter"))
    places = [float(line.get("y1", "")) for line in lora.iter(f"{SVG}line")]
    assert places == [float(line.get("y1", "")) for line in adapter.iter(f"{SVG}line")]
    leaders = [line for line in lora.iter(f"{SVG}polyline") if "leader" in line.get("class", "")]
    assert len(leaders) == 1
    assert "1 stopped early" in lora.get("aria-label", "")


def test_svg_element_escapes_text_and_attributes() -> None:
    drawn = element("text", "<b>&", title='"><i>')
    assert drawn == '<text title="&#34;&gt;&lt;i&gt;">&lt;b&gt;&amp;</text>'


def test_standalone_drawing_contains_its_style_sheet() -> None:
    point = Point(label="<lora>", cost=10, score=0.5, interval=(0.4, 0.6), kind="tied")
    alone = ET.fromstring(standalone(scatter([point], cost="bytes", score="f1", cost_text=number, metric=ACCURACY)))
    assert alone[0].tag == f"{SVG}style"
    assert "prefers-color-scheme" in (alone[0].text or "")
