"""The text report of scienceqa: what was counted, how sure it is, and what it does not show."""

import numpy as np

from interp_lab.store.results import Results
from interp_lab.store.summary import prompt_lines
from interp_lab.studies.scienceqa.knockout import CONDITIONS

CAUTION = (
    "Attention alone does not show use: a head can look at the image and not matter for the "
    "answer, and matter without looking. analysis.knockout measures what blocking it does."
)


def report(results: Results, top_k: int) -> str:
    """Return the report.

    Args:
        results: a finished run.
        top_k: heads a layer that are named.
    """
    attributes = results.attributes
    lines = ["ScienceQA: which head looks hardest at the image", "=" * 48, ""]
    lines += [
        f"model       {attributes.get('model', '')}",
        f"data set    {attributes.get('dataset', '')}",
    ]
    lines.append(f"definition  {results.fields['scores'].definition}")
    lines += [f"note        {note}" for note in results.notes]
    lines += prompt_lines(results)
    lines.append(
        f"samples     {len(results)} measured, {len(results.failures)} failed, "
        f"{results.aggregate('n_with_image')} with an image"
    )
    lines.append(f"accuracy    {_interval(results, 'accuracy')}")
    lines += ["", CAUTION, ""]
    lines += _knockout(results)
    if "layer_head_counts" in results.aggregates:
        lines += _layers(results, top_k)
    return "\n".join(lines) + "\n"


def _layers(results: Results, top_k: int) -> list[str]:
    counts: np.ndarray = results.aggregate("layer_head_counts")
    curves = {
        name: results.aggregate(name)
        for name in (
            "distinct_heads",
            "entropy_bits",
            "near_tie_share",
            "top_head_share_low",
            "top_head_share_high",
            "split_half_agreement",
        )
        if name in results.aggregates
    }
    lines = ["layer  distinct  entropy/bit  near-ties  halves agree  heads (share of samples)"]
    for layer, row in enumerate(counts):
        order = np.argsort(-row, kind="stable")[:top_k]
        heads = ", ".join(f"{h}: {row[h]} ({row[h] / row.sum():.0%})" for h in order if row[h])
        low, high = curves["top_head_share_low"][layer], curves["top_head_share_high"][layer]
        agreement = curves.get("split_half_agreement")
        lines.append(
            f"{layer:>5}  {int(curves['distinct_heads'][layer]):>8}  "
            f"{curves['entropy_bits'][layer]:>11.2f}  {curves['near_tie_share'][layer]:>9.0%}  "
            f"{f'{agreement[layer]:.0%}' if agreement is not None else '-':>12}  "
            f"{heads}; first head's share {low:.0%} to {high:.0%} (95 %)"
        )
    return lines


def _knockout(results: Results) -> list[str]:
    if "knockout_baseline_accuracy" not in results.aggregates:
        return []
    lines = ["Blocking the image from heads, and answering again (95 % intervals):"]
    for condition in CONDITIONS:
        if f"knockout_{condition}_accuracy" not in results.aggregates:
            continue
        lines.append(
            f"  {condition:<9} accuracy {_interval(results, f'knockout_{condition}_accuracy')}, "
            f"logit difference {_interval(results, f'knockout_{condition}_logit_difference')}"
        )
    if "winners_less_random_accuracy" not in results.aggregates:
        return [*lines, ""]
    lines.append(
        "  winners less random, sample by sample: accuracy "
        f"{_interval(results, 'winners_less_random_accuracy')}, "
        f"logit difference {_interval(results, 'winners_less_random_logit_difference')}"
    )
    return [*lines, ""]


def _interval(results: Results, name: str) -> str:
    value, low, high = (float(results.aggregate(f"{name}{s}")) for s in ("", "_low", "_high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
