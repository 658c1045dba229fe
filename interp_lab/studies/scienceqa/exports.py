"""The files of scienceqa that earlier scripts read, under their names and in their formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.store.results import Results
from interp_lab.studies.scienceqa.report import report

# What the original tool measures, and what it calls that.
ORIGINAL, ORIGINAL_TYPE = "max_text_to_image", "text_to_image_attention"


def export(results: Results, folder: Path, top_k: int) -> None:
    """Write attention_head_records.pt, statistics.json and analysis_report.txt."""
    # The one file in torch's own format, which its readers expect; nothing else here needs torch.
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(records(results), folder / "attention_head_records.pt")
    prompts = {"prompts": results.prompts} if results.prompts else {}
    text = json.dumps(statistics(results) | prompts, indent=2)
    (folder / "statistics.json").write_text(text, encoding="utf-8")
    (folder / "analysis_report.txt").write_text(report(results, top_k), encoding="utf-8")


def records(results: Results) -> list[dict[str, Any]]:
    """Return one record a sample with an image: id, file, winning heads, image span."""
    names = ["max_head_per_layer", "image_file", "image_token_start", "image_token_end"]
    found: list[dict[str, Any]] = []
    for block in results.stream(names):
        for winners, file, start, end in zip(*(block[n] for n in names), strict=True):
            found.append(
                {
                    "sample_id": results.sample_ids[len(found)],
                    "image_file": str(file),
                    "max_head_per_layer": winners.tolist(),
                    "image_token_start": int(start),
                    "image_token_end": int(end),
                }
            )
    return [record for record in found if record["image_token_start"] >= 0]


def statistics(results: Results) -> dict[str, Any]:
    """Return the counts, and where the image stands, as the original tool wrote them.

    They are num_samples, num_layers, num_heads, layer_head_counts (non-zero only), sys_length
    (tokens before the image), img_length (tokens of the image) and analysis_type. The original
    took both lengths as fixed; where they differ between samples no one number is true, and it is
    null. Each sample's own stand in attention_head_records.pt.
    """
    if "layer_head_counts" not in results.aggregates:
        none = {"num_samples": 0, "num_layers": 0, "num_heads": 0, "layer_head_counts": {}}
        return none | _original(results)
    counts: np.ndarray = results.aggregate("layer_head_counts")
    return {
        "num_samples": int(counts[0].sum()),
        "num_layers": counts.shape[0],
        "num_heads": counts.shape[1],
        "layer_head_counts": {
            str(layer): {str(head): int(row[head]) for head in np.flatnonzero(row)}
            for layer, row in enumerate(counts)
        },
        **_original(results),
    }


def _original(results: Results) -> dict[str, Any]:
    """Return the lengths that all samples with an image have in common, and what was measured."""
    names = ["image_token_start", "image_token_end"]
    found: set[tuple[int, int]] = set()
    for block in results.stream(names) if set(names) <= set(results.fields) else ():
        start, end = (block[name] for name in names)
        found |= set(zip(start.tolist(), (end - start).tolist(), strict=True))
    starts, lengths = {s for s, _ in found if s >= 0}, {n for s, n in found if s >= 0}
    definition = results.definitions.get("scores", "").partition("/")[0].rpartition(".")[2]
    return {
        "sys_length": starts.pop() if len(starts) == 1 else None,
        "img_length": lengths.pop() if len(lengths) == 1 else None,
        "analysis_type": ORIGINAL_TYPE if definition in ("", ORIGINAL) else definition,
    }
