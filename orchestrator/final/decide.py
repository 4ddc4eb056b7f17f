"""The choice of a task's method from the results of the final."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import methods
from orchestrator.common.metric import Metric
from orchestrator.final.results import AnswerReader
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.baseline import Baseline, leads
from orchestrator.selection.claims import claims
from orchestrator.selection.evidence import Evidence, MethodSample, gather
from orchestrator.selection.gain_draws import allowances, draw_gains, with_probabilities
from orchestrator.selection.looks import level_of, level_text
from orchestrator.selection.recommend import pareto, recommend
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection
from orchestrator.selection.tied_set import ranks

log = logging.getLogger(__name__)


def decide(
    plan: SweepPlan,
    task: str,
    reader: AnswerReader,
    results: Sequence[MethodResult],
    failed: Mapping[str, str],
    *,
    untuned: str | None = None,
    tuning_unit: float = 0.0,
    look: int = 1,
) -> Selection:
    """Compare the results with each other, and choose a method.

    Args:
        plan: plan of the sweep.
        task: name of the task.
        reader: reader of the task's predictions.
        results: results of all scored methods, at least one of them a finalist's.
        failed: why a method has no result, by method.
        untuned: checkpoint of the untuned backbone, one more baseline; ``None`` where it was not scored.
        tuning_unit: unit of the tuning gains of the search.
        look: which look at the test rows this is, from 1.
    """
    metric, settings, seed = reader.metric, plan.config.selection, plan.config.seed
    level = level_of(look)
    ordered = sorted(results, key=lambda result: (bool(result.reason), -metric.sign * result.mean_score))
    finalists = sum(not result.reason for result in ordered)
    trivial = reader.trivial_samples(ordered[0].seeds[0].checkpoint)
    trivial |= reader.untuned_sample(untuned) if untuned else {}
    everything = _evidence(reader, ordered, seed, trivial=trivial.values())
    evidence = everything.of(range(len(ordered)))
    # The eliminated methods have one score each, of a trial that was chosen by validation: they get an interval, and
    # are kept out of the comparison with the best.
    rank = ranks(evidence.of(range(finalists)), metric, level=level, seed=seed)
    compared = [_with_interval(result, evidence, number, reader, level) for number, result in enumerate(ordered)]
    tuning = draw_gains(compared, tuning_unit, metric)
    allowed = allowances(tuning[:, :finalists])
    tuned = ranks(evidence.of(range(finalists)), metric, level=level, seed=seed, tuning=allowed)
    for number in range(finalists):
        gap, is_tied = None if rank[number].tied else rank[number].gap, rank[number].tied
        is_undecided = tuned[number].tied and not is_tied
        compared[number] = replace(compared[number], gap=gap, tied=is_tied, undecided=is_undecided)
    compared = with_probabilities(compared, evidence, metric, tuning, seed)
    baselines = _baselines(trivial, everything, metric, level)
    if baselines:
        best_baseline = len(ordered) + list(trivial).index(baselines[0].name)
        # Finalists apart: the others' single scores would only make their bounds lower.
        for group in (range(finalists), range(finalists, len(ordered))):
            gains = leads(everything, metric, group, best_baseline, level=level, seed=seed)
            for number, gain in zip(group, gains, strict=True):
                compared[number] = replace(compared[number], baseline_lead=gain)
    compared = _with_other_scores(reader, compared, seed, level)
    front = pareto(compared, metric)
    compared = [replace(result, pareto=result.method in front) for result in compared]
    choice = recommend(compared, settings.prefer, metric, level=level_text(look))
    best = next(number for number, result in enumerate(compared) if result.method == choice.method)
    tied = [result.method for result in compared if result.tied and result.method != choice.method]
    return Selection(
        task=task,
        metric=metric,
        prefer=settings.prefer,
        rows=evidence.rows,
        seeds=settings.seeds,
        recommended=choice.method,
        trial=compared[best].trial,
        reason=choice.reason,
        alternative=choice.alternative,
        tied=(choice.method, *tied),
        minimum_detectable_difference=rank[best].minimum_detectable_difference,
        finalists=tuple(compared[:finalists]),
        others=tuple(compared[finalists:]),
        baselines=baselines,
        failed=failed,
        claims=claims(compared, evidence, metric, parameters=plan.parameters),
        tuning_unit=tuning_unit,
        evidence=evidence.to_dict(),
        look=look,
    )


def _with_other_scores(
    reader: AnswerReader, results: Sequence[MethodResult], seed: int, level: float
) -> list[MethodResult]:
    """Return the results with mean and interval of the metrics that are listed beside the optimized one."""
    others: list[dict[str, tuple[float, float, float]]] = [{} for _ in results]
    for metric in reader.other_metrics:
        if any(metric.name not in seed_result.metrics for result in results for seed_result in result.seeds):
            continue  # a checkpoint of an earlier run of a resumed sweep, scored before the metric was listed
        try:
            evidence = _evidence(reader, results, seed, metric)
        except ValueError as error:  # undefined on every resample: no reason to lose a sweep
            log.warning("%s has no interval: %s", metric.name, error)
            continue
        for number, scores in enumerate(others):
            low, high = evidence.interval(number, level=level, bounds=metric.bounds)
            scores[metric.name] = (float(evidence.means[number]), low, high)
    return [replace(result, other_scores=scores) for result, scores in zip(results, others, strict=True)]


def _baselines(
    trivial: Mapping[str, MethodSample], evidence: Evidence, metric: Metric, level: float
) -> tuple[Baseline, ...]:
    """Return the scores of the trivial predictors, which stand last in the evidence; the best first."""
    first = len(evidence.means) - len(trivial)
    scored = [
        Baseline(
            name=name,
            score=float(evidence.means[number]),
            interval=evidence.interval(number, level=level, bounds=metric.bounds),
        )
        for number, name in enumerate(trivial, first)
    ]
    return tuple(sorted(scored, key=lambda baseline: -metric.sign * baseline.score))


def _evidence(
    reader: AnswerReader,
    results: Sequence[MethodResult],
    seed: int,
    metric: Metric | None = None,
    trivial: Iterable[MethodSample] = (),
) -> Evidence:
    name = (metric or reader.metric).name
    samples = [
        MethodSample(
            tuple(seed_result.metrics[name] for seed_result in result.seeds) if metric else result.seed_scores,
            tuple(reader.statistic(seed_result.checkpoint, metric) for seed_result in result.seeds),
            # Seeds that all came to one constant answer say nothing of how scores vary over seeds.
            methods.get(result.method).trains and not result.is_constant,
        )
        for result in results
    ]
    return gather([*samples, *trivial], reader.rows(results[0].seeds[0].checkpoint), seed=seed)


def _with_interval(
    result: MethodResult, evidence: Evidence, number: int, reader: AnswerReader, level: float
) -> MethodResult:
    """Return a result with its interval over rows and seeds; a single score keeps that over rows alone.

    A constant answer has that of the same answer everywhere, however often it was trained.
    """
    if len(result.seeds) == 1 and not result.is_constant and level == level_of(1):
        return result
    return replace(result, interval=evidence.interval(number, level=level, bounds=reader.metric.bounds))
