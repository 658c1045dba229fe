"""The text report of semdim: answers, dimensions by layer, token lengths, what blocking does."""

import json
from collections import defaultdict

import numpy as np

from interp_lab.store.results import Results
from interp_lab.store.summary import prompt_lines
from interp_lab.studies.semdim.knockout import CONDITIONS

CAUTION = (
    "A fraction of 0.5 is no preference. Attention alone does not show use: analysis.knockout=true "
    "hides the word from the options and measures what that does to the answer."
)


def report(results: Results) -> str:
    """Return the report of a finished run."""
    attributes = results.attributes
    definitions = json.loads(attributes.get("definitions", "{}"))
    lines = ["Semantic dimensions: what a word's sound makes the model attend to", "=" * 66, ""]
    lines += [f"model       {attributes.get('model', '')}"]
    lines += [f"data set    {attributes.get('dataset', '')}"]
    lines += [f"{name:<18} {text}" for name, text in definitions.items()]
    lines += [f"note        {note}" for note in results.notes]
    lines += prompt_lines(results)
    dropped = int(results.aggregate("n_dropped"))
    lines.append(
        f"samples     {len(results)} measured, {len(results.failures)} failed; "
        f"{dropped} words and pairs left out as wrong"
        f"{_samples_dropped(results)}"
    )
    lines += [f"accuracy    {_interval(results, 'accuracy')}", "", CAUTION, ""]
    lines += _lengths(results)
    if "dimension_curve" in results.aggregates:
        lines += _dimensions(results)
    if "findings" in results.aggregates:
        lines += [str(results.aggregate("findings")), ""]
    if "knockout_baseline_accuracy" in results.aggregates:
        lines.append(
            "The word hidden from the options by layer band, and from everything (95 % intervals)"
        )
        lines += [
            f"  {band:<10} accuracy {_interval(results, f'knockout_{band}_accuracy')}, "
            f"answer changed {_interval(results, f'knockout_{band}_answer_change')}"
            for band in ("baseline", *CONDITIONS)
        ]
    return "\n".join(lines) + "\n"


def _samples_dropped(results: Results) -> str:
    name = "n_dropped_samples"
    return f" ({int(results.aggregate(name))} samples)" if name in results.aggregates else ""


def _dimensions(results: Results) -> list[str]:
    names = json.loads(results.aggregate("dimensions"))
    curve = results.aggregate("dimension_curve")
    low, high = (results.aggregate(f"dimension_curve_{b}") for b in ("low", "high"))
    lines = [
        "Share of the first feature, mean over layers and heads, and the layer furthest from 0.5"
    ]
    for row, name in enumerate(names):
        layer = int(np.abs(curve[row] - 0.5).argmax())
        lines.append(
            f"  {name:<28} {curve[row].mean():.3f}   layer {layer}: {curve[row, layer]:.3f} "
            f"({low[row, layer]:.3f} to {high[row, layer]:.3f})"
        )
    return [*lines, ""]


def _lengths(results: Results) -> list[str]:
    """Token lengths stand beside the fractions: a sum favours the feature with more tokens."""
    totals: dict[str, list[float]] = defaultdict(list)
    names = ["dimension1", "dimension2", "n_dim1_tokens", "n_dim2_tokens"]
    for block in results.stream(names):
        for one, two, n1, n2 in zip(*(block[n] for n in names), strict=True):
            totals[str(one)].append(float(n1))
            totals[str(two)].append(float(n2))
    listed = ", ".join(f"{name} {np.mean(n):.1f}" for name, n in sorted(totals.items()))
    return [f"Tokens of each feature (a long one is favoured by normalize=sum): {listed}", ""]


def _interval(results: Results, name: str) -> str:
    value, low, high = (float(results.aggregate(f"{name}{s}")) for s in ("", "_low", "_high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
