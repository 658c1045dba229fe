"""What a result holds, as text: for `mode=summary` and for a look before drawing."""

from collections import Counter

from interp_lab.fields import Category, Document, Scalar
from interp_lab.store.opening import WITHOUT
from interp_lab.store.results import Results

LONGEST_LIST = 10
# The aggregate in which a study says in words what stands out in its numbers.
FINDINGS = "findings"
# Samples that are read at once; the fields that are read here are small.
BLOCK = 4096


def summary(results: Results) -> str:
    """Return provenance, fields, aggregates and failures of a result as text."""
    attributes = results.attributes
    lines = [f"{results.path}"]
    for key in ("task_name", "model", "dataset", "device", "run_id", "started", "finished"):
        if key in attributes:
            lines.append(f"  {key:<10} {attributes[key]}")
    lines += [f"  note       {note}" for note in results.notes]
    if not results.has_checksum:
        lines.append(f"  note       {WITHOUT}")
    lines += [f"  {line}" for line in prompt_lines(results)]
    lines.append(f"{len(results)} samples measured, {len(results.failures)} failed")
    lines += [f"  {name.replace('_', ' ')}: {count}" for name, count in results.counts.items()]
    lines += _categories(results)
    lines += _listed([f"  {name}" for name in results.sample_ids])
    lines.append("fields of a sample")
    for field in results.fields.values():
        axes = f"({', '.join(field.axes)})" if field.axes else ""
        lines.append(f"  {field.name:<24} {field.kind:<14} {axes:<22} {field.about} [{field.unit}]")
    lines += _scalar_means(results)
    if results.aggregates:
        lines.append("over all samples")
        lines += [f"  {f.name:<24} {f.kind:<14} {f.about}" for f in results.aggregates.values()]
    lines += _findings(results)
    if results.failures:
        lines.append("failures")
        lines += _listed([f"  {f.sample_id} ({f.stage}): {f.reason}" for f in results.failures])
    return "\n".join(lines)


def _findings(results: Results) -> list[str]:
    """Return what the numbers of a study say in words: its Document `findings`, if it has one."""
    if not isinstance(results.aggregates.get(FINDINGS), Document):
        return []
    return str(results.aggregate(FINDINGS)).splitlines()


def prompt_lines(results: Results) -> list[str]:
    """Return the name of each prompt, and its text as it stands, each line of it indented."""
    lines = []
    for name, text in results.prompts.items():
        lines += [f"prompt     {name}", *(f"    {line}" for line in text.split("\n"))]
    return lines


def _categories(results: Results) -> list[str]:
    """Count the samples by their few-valued labels: language, data type, pair, answer."""
    lines = []
    for field in results.of_kind(Category):
        values = Counter(
            str(v) for block in results.stream([field.name], BLOCK) for v in block[field.name]
        )
        if 1 <= len(values) <= LONGEST_LIST:
            listed = ", ".join(f"{value or '(none)'} {n}" for value, n in sorted(values.items()))
            lines.append(f"  {field.name}: {listed}")
    return lines


def _scalar_means(results: Results) -> list[str]:
    scalars = [f for f in results.of_kind(Scalar) if not f.ragged]
    if not scalars or not len(results):
        return []
    totals = dict.fromkeys((f.name for f in scalars), 0.0)
    for block in results.stream(list(totals), BLOCK):
        for name, values in block.items():
            totals[name] += float(values.sum())
    lines = ["means over the samples"]
    return lines + [f"  {name:<24} {total / len(results):.6g}" for name, total in totals.items()]


def _listed(lines: list[str]) -> list[str]:
    if len(lines) <= LONGEST_LIST:
        return lines
    return [*lines[:LONGEST_LIST], f"  ... and {len(lines) - LONGEST_LIST} more"]
