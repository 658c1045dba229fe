"""ANALYSIS_REPORT.md: what the gates do, whether that helps, and how to read the numbers."""

import itertools
import json
from collections.abc import Sequence

import numpy as np
from omegaconf import OmegaConf

from interp_lab.store.results import Results
from interp_lab.store.summary import prompt_lines
from interp_lab.studies.avigate.aggregates import (
    ALL,
    HELPS,
    MISLEADS,
    audio_groups,
    conditions,
    gate_kinds,
    stacked,
)
from interp_lab.studies.avigate.moments import PLAIN

READING = """\
A gate is read after its nonlinearity. A positive gate adds its branch to the video, a negative one
subtracts it, and a gate near zero ignores it. The sign of a tanh gate is arbitrary: a branch whose
output changes sign together with its gate gives the same network. How much of the audio is let
through is therefore stated as |g|, and a difference in |g| is no proof that the audio is used. What
shows use is what happens to the loss and to the moments found when the gates are changed."""
MEASURE_WORDS = {
    "r1_0_5": "R1@0.5",
    "r1_0_7": "R1@0.7",
    "average_precision": "mAP",
    "loss": "loss",
}
# Measures whose changes the summary states.
SUMMARISED = ("r1_0_5", "average_precision")
COLUMNS = {
    "mean": "mean",
    "std": "std",
    "min": "min",
    "p5": "5 %",
    "p25": "25 %",
    "median": "median",
    "p75": "75 %",
    "p95": "95 %",
    "max": "max",
    "magnitude": "|g|",
    "share_positive": "positive",
    "share_negative": "negative",
    "share_near_zero": "near zero",
}
PICTURES = (
    ("overall_statistics", "All gates"),
    ("layer_distributions", "Distribution of each layer"),
    ("activation_patterns", "Every sample by layer"),
)


def report(results: Results, figures: str) -> str:
    """Return the report as Markdown.

    Args:
        results: a finished run.
        figures: where the figures lie, seen from the report.
    """
    attributes = results.attributes
    failed = f", {len(results.failures)} failed" if results.failures else ""
    lines = [
        "# Gates of audio-visual fusion",
        "",
        *_table(
            ("", ""),
            [
                ("model", attributes.get("model", "")),
                ("data set", attributes.get("dataset", "")),
                ("samples", f"{len(results)} measured{failed}"),
                ("gates", _shapes(results)),
                ("near zero", f"abs(g) up to {float(results.aggregate('near_zero')):g}"),
            ],
        ),
        "",
        *(f"> {note}\n" for note in results.notes),
        *_summary(results),
        "## How to read a gate",
        "",
        READING,
        "",
    ]
    lines += _statistics(results)
    lines += _associations(results)
    lines += _measures(results)
    lines += _extremes(results)
    lines += _pictures(results, figures)
    if results.prompts:
        lines += ["## Prompts", ""]
        lines += [*(f"    {line}" for line in prompt_lines(results)), ""]
    if results.failures:
        lines += ["## Samples that could not be measured", ""]
        lines += [f"- `{f.sample_id}` ({f.stage}): {f.reason}" for f in results.failures]
    return "\n".join(lines).rstrip() + "\n"


def _shapes(results: Results) -> str:
    first = results.sample_ids[0]
    shapes = {kind: results.read(f"gate_{kind}", first).shape for kind in gate_kinds(results)}
    return "; ".join(
        f"{kind}: {layers} layers, "
        f"{'one value a video' if clips == 1 else 'one value a clip'}"
        f"{f' and channel ({channels})' if channels > 1 else ''}"
        for kind, (layers, clips, channels) in shapes.items()
    )


def _summary(results: Results) -> list[str]:
    """Return the findings in sentences, each with its numbers."""
    lines = ["## What was found", "", "In brackets: 95 % bootstrap intervals over samples.", ""]
    for kind in gate_kinds(results):
        size = [float(v) for v in results.aggregate(f"{kind}_magnitude")]
        signs = [
            float(results.aggregate(f"{kind}_share_{s}_overall"))
            for s in ("positive", "negative", "near_zero")
        ]
        lines.append(
            f"- The **{kind}** gates are at mean |g| "
            f"{_number(kind, 'magnitude_overall', results)}, from {min(size):.3f} (layer "
            f"{int(np.argmin(size))}) to {max(size):.3f} (layer {int(np.argmax(size))}); "
            f"{signs[0]:.0%} are positive, {signs[1]:.0%} negative, "
            f"{signs[2]:.0%} near zero."
        )
        lines += _separation_words(results, kind)
    for condition, measure in itertools.product(conditions(results), SUMMARISED):
        changes = [
            f"{_signed(results, name)} over {'all' if group == ALL else f'the {group}'} samples"
            for group in audio_groups(results)
            if (name := f"{condition}_less_plain_{measure}_{group}") in results.aggregates
        ]
        if changes:
            words = f"**{condition.replace('_', ' ')}**: {MEASURE_WORDS[measure]}"
            lines.append(f"- {words} changes by {'; '.join(changes)}.")
    return [*lines, ""]


def _number(kind: str, name: str, results: Results) -> str:
    return f"{float(results.aggregate(f'{kind}_{name}')):.3f}"


def _separation_words(results: Results, kind: str) -> list[str]:
    if f"{kind}_separation" not in results.aggregates:
        return []
    curves = [results.aggregate(f"{kind}_magnitude_{name}") for name in (HELPS, MISLEADS)]
    layer = int(np.argmax(np.abs(curves[0] - curves[1])))
    means = [float(curve[layer]) for curve in curves]
    return [
        f"- Informative and misleading audio differ most in **{kind}** layer {layer}: mean |g| "
        f"{means[0]:.3f} and {means[1]:.3f}, AUC {_curve(results, f'{kind}_separation', layer)}."
    ]


def _statistics(results: Results) -> list[str]:
    lines = ["## Statistics", "", "All clips and channels of all samples count alike.", ""]
    for kind in gate_kinds(results):
        rows = []
        n_layers = len(results.aggregate(f"{kind}_mean"))
        for row in range(n_layers + 1):
            numbers = [
                results.aggregate(f"{kind}_{name}")[row]
                if row < n_layers
                else results.aggregate(f"{kind}_{name}_overall")
                for name in COLUMNS
            ]
            cells = [
                f"{float(v):.0%}" if name.startswith("share") else f"{float(v):.3f}"
                for name, v in zip(COLUMNS, numbers, strict=True)
            ]
            rows.append((str(row) if row < n_layers else "all", *cells))
        header = ("layer", *(word.replace("|", "\\|") for word in COLUMNS.values()))
        lines += [f"### {kind} gates", "", *_table(header, rows), ""]
    return lines


def _associations(results: Results) -> list[str]:
    """The tables that say whether a gate opens when audio helps."""
    named = {
        "loss_correlation": "correlation of \\|g\\| with the loss saved",
        **{f"magnitude_{k}": f"mean \\|g\\|, {k}" for k in audio_groups(results) if k != ALL},
        "separation": "AUC",
    }
    lines: list[str] = []
    for kind in gate_kinds(results):
        held = {n: words for n, words in named.items() if f"{kind}_{n}" in results.aggregates}
        if not held:
            continue
        n_layers = len(results.aggregate(f"{kind}_mean"))
        rows = [
            (str(layer), *(_curve(results, f"{kind}_{name}", layer) for name in held))
            for layer in range(n_layers)
        ]
        lines += [f"### {kind} gates", "", *_table(("layer", *held.values()), rows), ""]
    if not lines:
        return []
    words = (
        "The loss saved is the loss with the audio gates closed minus the loss as the model is; "
        "above 0 the audio helps. The correlation is Spearman's, over samples. AUC is the share of "
        "pairs of an informative and a misleading sample in which the informative one has the "
        "larger |g|; 0.5 is no separation. AUC says nothing of how far a gate opens: read it with "
        "the means beside it. In brackets: 95 % bootstrap intervals over samples."
    )
    return ["## Does the gate open when audio helps?", "", words, "", *lines]


def _measures(results: Results) -> list[str]:
    held = [m for m in MEASURE_WORDS if f"{PLAIN}_{m}_{ALL}" in results.aggregates]
    if not held:
        return []
    rows = []
    for group in audio_groups(results):
        for condition in conditions(results):
            if f"{condition}_{held[0]}_{group}" in results.aggregates:
                cells = (_interval(results, f"{condition}_{m}_{group}") for m in held)
                size = int(results.aggregate(f"n_{group}"))
                rows.append((f"{group} ({size})", condition.replace("_", " "), *cells))
    words = (
        "Moment retrieval as the QVHighlights benchmark defines it (arXiv 2107.09609), with the "
        "gates as they are (plain) and changed, and with 95 % bootstrap intervals over samples."
    )
    values = json.loads(results.attributes.get("definitions", "{}")).get("variants")
    words += f" The audio gates are set to: {values}." * bool(values)
    header = ("samples", "gates", *(MEASURE_WORDS[m] for m in held))
    return ["## Moments found", "", words, "", *_table(header, rows), ""]


def _extremes(results: Results) -> list[str]:
    """Name the samples whose last layer is most open and most closed."""
    lines: list[str] = []
    for kind in gate_kinds(results):
        size = stacked(results, f"magnitude_{kind}")[:, -1]
        order = np.argsort(-size, kind="stable")
        if len(order) < 4:
            return []
        for word, chosen in (("most open", order[:3]), ("most closed", order[:-4:-1])):
            names = ", ".join(f"`{results.sample_ids[i]}` ({size[i]:.3f})" for i in chosen)
            lines.append(f"- {kind}, last layer, {word}: {names}")
    return ["## Samples to look at", "", "By mean |g|:", "", *lines, ""]


def _pictures(results: Results, figures: str) -> list[str]:
    known = list(PICTURES)
    means = [stacked(results, f"mean_{kind}") for kind in gate_kinds(results)]
    if len(results) >= 3 and any(np.ptp(mean, axis=0).any() for mean in means):
        known.append(("gate_clustering", "Samples by likeness of their gates"))
    if "plain_r1_0_5_all" in results.aggregates:
        known.append(("moments_under_gates", "Moments found under changed gates"))
    if "attention_loss_correlation" in results.aggregates:
        known.append(("gate_benefit", "Gate and what the audio is worth"))
    if len(results) + len(results.failures) < 2:
        known = known[:2]
    lines = ["## Figures", ""]
    config = OmegaConf.create(results.attributes.get("config", "{}"))
    suffix = OmegaConf.select(config, "visualization.format") or "png"
    for name, words in known:
        lines += [f"### {words}", "", f"![{words}]({figures}/{name}.{suffix})", ""]
    return [*lines, f"Single samples: `{figures}/individual_samples/`", ""]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _curve(results: Results, name: str, layer: int) -> str:
    return _words([float(results.aggregate(f"{name}{end}")[layer]) for end in _ENDS])


def _interval(results: Results, name: str) -> str:
    if name not in results.aggregates:
        return "-"
    return _words([float(results.aggregate(f"{name}{end}")) for end in _ENDS])


def _signed(results: Results, name: str) -> str:
    value, low, high = (float(results.aggregate(f"{name}{end}")) for end in _ENDS)
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _words(values: Sequence[float]) -> str:
    value, low, high = values
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


_ENDS = ("", "_low", "_high")
