"""Claims of the literature about the methods, tested on one sweep: confirmed, contradicted or undecided.

A claim is tested only where its methods were scored. A claim about size is answered by sizes, as measured, without the
head that every method trains. Scores are compared with intervals over rows and seeds at the 95 % level, and only
between methods that were tuned: with defaults alone, what tuning would have brought is larger than what the methods
differ by. "Undecided" means that this sweep cannot decide. Sources: the methods' papers and public comparisons, most of
which report one seed without intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.common.metric import Metric
from orchestrator.common.units import number, size
from orchestrator.selection.evidence import Evidence, t_quantile
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Claim, Verdict

CLOSE = 0.02
SHARES = {  # of the backbone's parameters
    "prefix": (0.001, 0.02, "prefix tuning trains 0.1 to 2 % of the parameters"),
    "adapter": (0.01, 0.05, "adapters train 1 to 5 % of the parameters"),
    "lora": (0.001, 0.01, "LoRA trains 0.1 to 1 % of the parameters"),
}
MIN_TUNED_TRIALS = 8
"""Full trials of each method without which a claim about their scores is undecided."""
HEAD_ALONE = ("linear_probe", "hard_prompt")


@dataclass(frozen=True)
class _Sweep:
    """The results that the claims are tested on.

    Args:
        results: results by method, in the order of the evidence.
        evidence: scores of the methods with their covariance.
        metric: metric of the scores.
        parameters: parameters of the backbone.
    """

    results: Mapping[str, MethodResult]
    evidence: Evidence
    metric: Metric
    parameters: int

    def lead(self, method: str, rival: str) -> tuple[float, float, float]:
        """Return by how much a method is better than a rival, and the 95 % interval of that difference."""
        names = list(self.results)
        first, second = names.index(method), names.index(rival)
        lead = self.metric.sign * float(self.evidence.means[first] - self.evidence.means[second])
        error, freedom = self.evidence.contrast(first, second)
        half = t_quantile(0.975, freedom) * error
        return lead, lead - half, lead + half

    def difference(self, method: str, rival: str) -> str:
        """Return the same as text."""
        lead, low, high = self.lead(method, rival)
        return f"{method} against {rival}: {lead:+.3f} {self.metric.label} [{low:+.3f}, {high:+.3f}]"

    def untuned(self, *methods: str) -> str:
        """Return which of some methods had too few full trials to be compared, a clause; empty if none had."""
        few = {name: self.results[name].trials for name in methods if self.results[name].trials < MIN_TUNED_TRIALS}
        counts = ", ".join(f"{name} {count}" for name, count in few.items())
        return f"; full trials: {counts}, fewer than {MIN_TUNED_TRIALS} tune no method" if few else ""

    def of_scores(self, claim: str, evidence: str, *methods: str, confirmed: bool, contradicted: bool) -> Claim:
        """Return a claim about the scores of some methods, which is undecided where one of them was not tuned."""
        untuned = self.untuned(*methods)
        verdict = _verdict(confirmed=confirmed and not untuned, contradicted=contradicted and not untuned)
        return Claim(claim=claim, verdict=verdict, evidence=evidence + untuned)

    def sizes(self, methods: Iterable[str]) -> dict[str, float]:
        """Return the parameters that methods train beside the head, of those where they were counted."""
        counts = {name: _counts(self.results[name]) for name in methods}
        return {name: count[0] for name, count in counts.items() if count}

    def sizes_text(self, methods: Iterable[str]) -> str:
        """Return the same as text, with the head in brackets."""
        counts = {name: _counts(self.results[name]) for name in methods}
        texts = [f"{name} {number(count[0])} ({number(count[1])})" for name, count in counts.items() if count]
        return f"trained parameters without the head (with it): {', '.join(texts)}"

    def trained(self) -> dict[str, MethodResult]:
        """Return the results of the methods that train more than the head."""
        return {name: result for name, result in self.results.items() if name not in HEAD_ALONE}


def claims(
    results: Sequence[MethodResult], evidence: Evidence, metric: Metric, *, parameters: int
) -> tuple[Claim, ...]:
    """Test every claim that concerns these methods.

    Args:
        results: results of all scored methods, in the order of the evidence.
        evidence: scores of the methods with their covariance.
        metric: metric of the scores.
        parameters: parameters of the backbone.
    """
    sweep = _Sweep({result.method: result for result in results}, evidence, metric, parameters)
    tests: list[Callable[[_Sweep], Iterator[Claim]]] = [
        _full_is_strong,
        _full_is_hungry,
        _prompt_is_smallest,
        _prompt_is_unstable,
        _shares,
        _close,
        _ia3,
        _more_than_the_head,
    ]
    return tuple(claim for test in tests for claim in test(sweep))


def _full_is_strong(sweep: _Sweep) -> Iterator[Claim]:
    rivals = [name for name in sweep.trained() if name != "full"]
    if "full" not in sweep.results or not rivals:
        return
    best = max(rivals, key=lambda name: -sweep.lead("full", name)[0])
    _, low, high = sweep.lead("full", best)
    # A margin of two points has a meaning on a metric between 0 and 1 alone.
    yield sweep.of_scores(
        "no other method exceeds full fine-tuning",
        f"{sweep.difference('full', best)}; {best} is the best of the others",
        "full",
        best,
        confirmed=low > (-CLOSE if sweep.metric.is_share else 0),
        contradicted=high < 0,
    )


def _full_is_hungry(sweep: _Sweep) -> Iterator[Claim]:
    needs = {name: result.measurements.get("peak_memory_bytes", 0.0) for name, result in sweep.results.items()}
    rivals = {name: needed for name, needed in needs.items() if name != "full" and needed > 0}
    if not needs.get("full") or not rivals:
        return
    most = max(rivals, key=lambda name: rivals[name])
    yield Claim(
        claim="full fine-tuning needs the most memory",
        verdict=_verdict(confirmed=needs["full"] > rivals[most], contradicted=needs["full"] < rivals[most]),
        evidence=f"full {size(needs['full'])} above the backbone, {most} {size(rivals[most])}",
    )


def _prompt_is_smallest(sweep: _Sweep) -> Iterator[Claim]:
    sizes = sweep.sizes(sweep.trained())
    if "prompt" not in sizes or len(sizes) < 2:
        return
    least = min((name for name in sizes if name != "prompt"), key=lambda name: sizes[name])
    smallest = sizes["prompt"] <= sizes[least]
    yield Claim(
        claim="prompt tuning trains the fewest parameters",
        verdict=_verdict(confirmed=smallest, contradicted=not smallest),
        evidence=sweep.sizes_text(("prompt", least)),
    )


def _prompt_is_unstable(sweep: _Sweep) -> Iterator[Claim]:
    spreads = {name: (result.measurements["seed_spread"], len(result.seed_scores))
               for name, result in sweep.results.items() if "seed_spread" in result.measurements}  # fmt: skip
    if "prompt" not in spreads or len(spreads) < 2:
        return
    spread, seeds = spreads.pop("prompt")
    rival = max(spreads, key=lambda name: spreads[name][0])
    rival_spread, rival_seeds = spreads[rival]
    wider = _wider(spread, rival_spread, seeds, rival_seeds)
    narrower = _wider(rival_spread, spread, rival_seeds, seeds)
    yield Claim(
        claim="prompt tuning is the least stable over seeds",
        verdict=_verdict(confirmed=wider, contradicted=narrower),
        evidence=f"standard deviation: prompt {spread:.4f} ({seeds} seeds), {rival} {rival_spread:.4f}"
        f" ({rival_seeds} seeds)",
    )


def _wider(spread: float, rival_spread: float, seeds: int, rival_seeds: int) -> bool:
    """Return whether a spread is significantly larger than another (F test, one-sided, 5 %)."""
    from scipy.special import fdtri

    return rival_spread > 0 and (spread / rival_spread) ** 2 > float(fdtri(seeds - 1, rival_seeds - 1, 0.95))


def _shares(sweep: _Sweep) -> Iterator[Claim]:
    for method, (low, high, words) in SHARES.items():
        counts = _counts(sweep.results[method]) if method in sweep.results else None
        if counts is None or sweep.parameters <= 0:
            continue
        share, with_head = (count / sweep.parameters for count in counts)
        yield Claim(
            claim=words,
            verdict=_verdict(confirmed=low <= share <= high, contradicted=not low <= share <= high),
            evidence=f"{method}: {number(counts[0])} of {number(sweep.parameters)} parameters, {share:.2%} without the"
            f" head, {with_head:.2%} with it",
        )


def _close(sweep: _Sweep) -> Iterator[Claim]:
    """Test the pairs that are said to be within 0.02 of each other, on metrics between 0 and 1."""
    pairs = {
        ("qlora", "lora"): "QLoRA is as good as LoRA",
        ("lora", "full"): "LoRA is as good as full fine-tuning",
        ("dora", "lora"): "tuned LoRA variants end within two points of each other",
    }
    for (method, rival), words in pairs.items():
        if method not in sweep.results or rival not in sweep.results or not sweep.metric.is_share:
            continue
        _, low, high = sweep.lead(method, rival)
        evidence = f"{sweep.difference(method, rival)}; equivalence margin {CLOSE}"
        confirmed, contradicted = low > -CLOSE and high < CLOSE, low > CLOSE or high < -CLOSE
        yield sweep.of_scores(words, evidence, method, rival, confirmed=confirmed, contradicted=contradicted)


def _ia3(sweep: _Sweep) -> Iterator[Claim]:
    best = [name for name, result in sweep.trained().items() if result.tied and name != "ia3"]
    sizes = sweep.sizes([name for name in ("ia3", *best) if name in sweep.results])
    if "ia3" not in sizes or len(sizes) < 2:
        return
    ia3, least = sizes.pop("ia3"), min(sizes.values())
    yield Claim(
        claim="IA3 trains fewer parameters than the best methods",
        verdict=_verdict(confirmed=ia3 < least, contradicted=ia3 > least),
        evidence=sweep.sizes_text(("ia3", *sizes)),
    )


def _more_than_the_head(sweep: _Sweep) -> Iterator[Claim]:
    best = next((name for name, result in sweep.trained().items() if result.tied), None)
    if "linear_probe" not in sweep.results or best is None:
        return
    _, low, high = sweep.lead(best, "linear_probe")
    yield sweep.of_scores(
        "training more than the head improves the score",
        sweep.difference(best, "linear_probe"),
        best,
        "linear_probe",
        confirmed=low > 0,
        contradicted=high < 0,
    )


def _counts(result: MethodResult) -> tuple[float, float] | None:
    """Return the parameters that a method trains without the head and with it; ``None`` where they are unknown."""
    trained, head = (result.measurements.get(name) for name in ("trainable_parameters", "head_parameters"))
    return None if trained is None or head is None else (max(0.0, trained - head), trained)


def _verdict(*, confirmed: bool, contradicted: bool) -> Verdict:
    return "confirmed" if confirmed else "contradicted" if contradicted else "undecided"
