"""From captured steps to the arrays of one answer, and what can be said of the answer itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp_lab.models.answers import Answer

# What `ended` may hold beside the usual `end_token`.
ENDS = {
    "end_token_at_once": "the model wrote its end token at once; there is one row",
    "empty_answer": "the answer is empty: special tokens only",
    "max_new_tokens": "cut off at model.max_new_tokens",
}


def ended_by(answer: Answer) -> str:
    if answer.complete and len(answer.tokens) == 1:
        return "end_token_at_once"
    if not answer.text:
        return "empty_answer"
    return "end_token" if answer.complete else "max_new_tokens"


def final_answer(text: str) -> str:
    """Return what stands in the last `<answer>` part, or nothing."""
    _, mark, rest = text.rpartition("<answer>")
    return rest.partition("</answer>")[0].strip() if mark else ""


def _steps(captured: Mapping[str, Any], name: str, n_new: int) -> list[np.ndarray]:
    """Return the rows that predict tokens 0 to n_new - 1: one of the prompt, the rest decoded."""
    steps = [captured[f"{name}/prefill"].values, *captured[f"{name}/decode"].steps[: n_new - 1]]
    return [step.float().cpu().numpy() for step in steps]


def rows_of(captured: Mapping[str, Any], n_prompt: int, n_new: int) -> np.ndarray:
    """Return (layer, head, step, key); keys that a step does not have are 0."""
    steps = _steps(captured, "row", n_new)
    # The mean over heads has no head axis: (layer, query, key).
    steps = [s[:, None, 0] if s.ndim == 3 else s[:, :, 0] for s in steps]
    rows = np.zeros((*steps[0].shape[:2], n_new, n_prompt + n_new), dtype=np.float32)
    for t, step in enumerate(steps):
        rows[:, :, t, : step.shape[-1]] = step
    return rows


def peaks_of(captured: Mapping[str, Any], n_new: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest attention on one image cell and that cell, (layer, head, step) both."""
    peaks, cells = (
        np.stack([step[:, :, 0] for step in _steps(captured, name, n_new)], axis=-1)
        for name in ("peak", "cell")
    )
    return peaks, cells.astype(np.int64)


def shares_of(captured: Mapping[str, Any], n_new: int) -> dict[str, np.ndarray]:
    """Return the shares (layer, step) on image, prompt text and generated text."""
    found: dict[str, np.ndarray] = {}
    for name in ("image", "prompt"):
        if f"{name}/prefill" in captured:
            # (layer, head, query) of each step, mean over heads.
            steps = [s.mean(1)[:, 0] for s in _steps(captured, name, n_new)]
            found[f"share_{name}"] = np.stack(steps, axis=1)
    prompt = found["share_prompt"]
    found.setdefault("share_image", np.zeros_like(prompt))
    rest = 1.0 - found["share_image"].astype(np.float64) - prompt
    found["share_generated"] = np.clip(rest, 0.0, 1.0)
    found["share_generated"][:, 0] = 0.0  # nothing is written yet
    return found
