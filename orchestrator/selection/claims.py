"""What the literature says of the methods, held against one sweep: confirmed, contradicted or undecided.

Each claim is asked only where its methods were scored. Sizes are facts; scores are compared with simultaneous
intervals over rows and seeds, so that "undecided" means that this sweep cannot tell. Sources: the methods' papers and
public comparisons, which mostly tell one seed without intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.common.units import number, size
from orchestrator.selection.evidence import Evidence, t_quantile
from orchestrator.selection.selection import Claim, Entry, Verdict

CLOSE = 0.02
SHARES = {  # of the backbone's parameters
    "prefix": (0.001, 0.02, "prefix tuning trains 0.1 to 2 % of the parameters"),
    "adapter": (0.01, 0.05, "adapters train 1 to 5 % of the parameters"),
    "lora": (0.001, 0.01, "LoRA trains 0.1 to 1 % of the parameters"),
}
HEAD_ALONE = ("linear_probe", "hard_prompt")


@dataclass(frozen=True)
class _Sweep:
    """What the claims are held against."""

    entries: Mapping[str, Entry]
    evidence: Evidence
    higher_is_better: bool
    parameters: int

    def lead(self, one: str, other: str) -> tuple[float, float, float]:
        """How much better one method is than another, and the 95 % interval of that."""
        names = list(self.entries)
        first, second = names.index(one), names.index(other)
        lead = float(self.evidence.means[first] - self.evidence.means[second]) * (1 if self.higher_is_better else -1)
        error, freedom = self.evidence.contrast(first, second)
        half = t_quantile(0.975, freedom) * error
        return lead, lead - half, lead + half

    def trained(self) -> dict[str, Entry]:
        """The methods that train something beside the head."""
        return {name: one for name, one in self.entries.items() if name not in HEAD_ALONE}


def claims(
    entries: Sequence[Entry], evidence: Evidence, *, metric: str, higher_is_better: bool, parameters: int
) -> tuple[Claim, ...]:
    """Hold every claim that concerns these methods against their scores and facts.

    Args:
        entries: everything that was scored, in the order of the evidence.
        evidence: their scores.
        metric: the score's name.
        higher_is_better: the metric's direction.
        parameters: of the backbone.
    """
    sweep = _Sweep({one.method: one for one in entries}, evidence, higher_is_better, parameters)
    asked: list[Callable[[_Sweep, str], Iterator[Claim]]] = [
        _full_is_strong,
        _full_is_hungry,
        _prompt_is_smallest,
        _prompt_is_unstable,
        _shares,
        _close,
        _ia3,
        _more_than_the_head,
    ]
    return tuple(claim for ask in asked for claim in ask(sweep, metric))


def _full_is_strong(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    rivals = [name for name in sweep.trained() if name != "full"]
    if "full" not in sweep.entries or not rivals:
        return
    best = max(rivals, key=lambda name: -sweep.lead("full", name)[0])
    lead, low, high = sweep.lead("full", best)
    verdict = _verdict(confirmed=low > -CLOSE if metric != "perplexity" else low > 0, contradicted=high < 0)
    yield Claim(
        claim="full fine-tuning is the ceiling that no other method exceeds",
        verdict=verdict,
        evidence=f"full against {best}, the best of the others: {_difference(lead, low, high, metric)}",
    )


def _full_is_hungry(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    needs = {name: one.measurements.get("peak_memory_bytes", 0.0) for name, one in sweep.entries.items()}
    rivals = {name: needed for name, needed in needs.items() if name != "full" and needed > 0}
    if not needs.get("full") or not rivals:
        return
    most = max(rivals, key=lambda name: rivals[name])
    yield Claim(
        claim="full fine-tuning needs the most memory",
        verdict=_verdict(confirmed=needs["full"] > rivals[most], contradicted=needs["full"] < rivals[most]),
        evidence=f"full {size(needs['full'])} above the backbone, {most} {size(rivals[most])}",
    )


def _prompt_is_smallest(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    sizes = {name: one.measurements.get("trainable_parameters", 0.0) for name, one in sweep.trained().items()}
    sizes = {name: count for name, count in sizes.items() if count > 0}
    if "prompt" not in sizes or len(sizes) < 2:
        return
    least = min((name for name in sizes if name != "prompt"), key=lambda name: sizes[name])
    smallest = sizes["prompt"] <= sizes[least]
    yield Claim(
        claim="prompt tuning trains the fewest parameters",
        verdict=_verdict(confirmed=smallest, contradicted=not smallest),
        evidence=f"prompt {number(sizes['prompt'])}, {least} {number(sizes[least])}, heads included",
    )


def _prompt_is_unstable(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    spreads = {name: (one.measurements["seed_spread"], len(one.scores)) for name, one in sweep.entries.items()
               if "seed_spread" in one.measurements}  # fmt: skip
    if "prompt" not in spreads or len(spreads) < 2:
        return
    own, seeds = spreads.pop("prompt")
    steadiest = max(spreads, key=lambda name: spreads[name][0])
    other, their_seeds = spreads[steadiest]
    wider, narrower = _wider(own, other, seeds, their_seeds), _wider(other, own, their_seeds, seeds)
    yield Claim(
        claim="prompt tuning is the least stable over seeds",
        verdict=_verdict(confirmed=wider, contradicted=narrower),
        evidence=f"standard deviation over {seeds} seeds: prompt {own:.4f}, {steadiest} {other:.4f}",
    )


def _wider(one: float, other: float, seeds: int, their_seeds: int) -> bool:
    """Whether one spread is the larger beyond doubt (F test, one-sided, 5 %)."""
    from scipy.special import fdtri

    return other > 0 and (one / other) ** 2 > float(fdtri(seeds - 1, their_seeds - 1, 0.95))


def _shares(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    for method, (low, high, words) in SHARES.items():
        count = sweep.entries[method].measurements.get("trainable_parameters") if method in sweep.entries else None
        if count is None or sweep.parameters <= 0:
            continue
        share = count / sweep.parameters
        yield Claim(
            claim=words,
            verdict=_verdict(confirmed=low <= share <= high, contradicted=not low <= share <= high),
            evidence=f"{method} at its best: {number(count)} of {number(sweep.parameters)}, {share:.2%}, head included",
        )


def _close(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    """Pairs that are said to be within two points of each other; of metrics that are shares of rows or like them."""
    pairs = {
        ("qlora", "lora"): "QLoRA is as good as LoRA",
        ("lora", "full"): "LoRA is as good as full fine-tuning",
        ("dora", "lora"): "tuned LoRA variants end within two points of each other",
    }
    for (one, other), words in pairs.items():
        if one not in sweep.entries or other not in sweep.entries or not sweep.higher_is_better:
            continue
        lead, low, high = sweep.lead(one, other)
        verdict = _verdict(confirmed=low > -CLOSE and high < CLOSE, contradicted=low > CLOSE or high < -CLOSE)
        told = f"{one} against {other}: {_difference(lead, low, high, metric)}; as good means within {CLOSE}"
        yield Claim(claim=words, verdict=verdict, evidence=told)


def _ia3(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    tied = {name: one for name, one in sweep.trained().items() if one.tied}
    if "ia3" not in sweep.entries or len(sweep.trained()) < 2:
        return
    if "ia3" not in tied:
        best = next((name for name, one in sweep.entries.items() if one.tied), "ia3")
        lead, low, high = sweep.lead("ia3", best)
        verdict = _verdict(confirmed=False, contradicted=high < 0)
        told = f"ia3 against {best}: {_difference(lead, low, high, metric)}"
        yield Claim(claim="IA3 is the smallest of the strong ones", verdict=verdict, evidence=told)
        return
    sizes = {name: one.measurements.get("trainable_parameters", float("inf")) for name, one in tied.items()}
    smallest = min(sizes, key=lambda name: sizes[name])
    verdict = _verdict(confirmed=smallest == "ia3" and len(tied) > 1, contradicted=smallest != "ia3")
    told = ", ".join(f"{name} {number(count)}" for name, count in sizes.items())
    yield Claim(claim="IA3 is the smallest of the strong ones", verdict=verdict, evidence=f"tied: {told}")


def _more_than_the_head(sweep: _Sweep, metric: str) -> Iterator[Claim]:
    best = next((name for name, one in sweep.trained().items() if one.tied), None)
    if "linear_probe" not in sweep.entries or best is None:
        return
    lead, low, high = sweep.lead(best, "linear_probe")
    yield Claim(
        claim="it pays to train more than the head",
        verdict=_verdict(confirmed=low > 0, contradicted=high < 0),
        evidence=f"{best} against linear_probe: {_difference(lead, low, high, metric)}",
    )


def _verdict(*, confirmed: bool, contradicted: bool) -> Verdict:
    return "confirmed" if confirmed else "contradicted" if contradicted else "undecided"


def _difference(lead: float, low: float, high: float, metric: str) -> str:
    return f"{lead:+.3f} {metric} [{low:+.3f}, {high:+.3f}]"
