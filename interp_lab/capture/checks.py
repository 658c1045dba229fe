"""Checks that run the model once more: does it see its input, how far is its eager attention?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.tally import Captured
from interp_lab.errors import ConfigError, NotFiniteError, UnsupportedModelError

# Tensors of processor outputs that carry a modality.
MODALITY_KEYS = {
    "image": ("pixel_values", "images"),
    "video": ("pixel_values_videos", "src_vid"),
    "audio": ("input_features", "input_values", "src_aud"),
}
# Logits that move less than this share of their range have not seen the change.
LIVE_SHARE = 1e-5


@torch.no_grad()
def live_check(
    run: Callable[[Mapping[str, Any]], Any], inputs: Mapping[str, Any], modality: str
) -> float:
    """Check that the model's output depends on an image, a video or an audio clip.

    Args:
        run: calls the model on inputs and returns logits or an output with `.logits`.
        inputs: what the processor gave.
        modality: "image", "video" or "audio".

    Returns:
        The largest change of a logit when the tensor is replaced by noise of the same spread.

    Raises:
        UnsupportedModelError: if the inputs hold no such tensor, or no logit changes.
        NotFiniteError: if a logit is NaN, which says nothing of what the model sees.
    """
    if modality not in MODALITY_KEYS:
        raise ConfigError(f"live_check: modality {modality!r}; use {', '.join(MODALITY_KEYS)}")
    verb = "hear" if modality == "audio" else "see"
    keys = [k for k in MODALITY_KEYS[modality] if isinstance(inputs.get(k), Tensor)]
    if not keys:
        raise UnsupportedModelError(
            f"the model's inputs hold no {modality} tensor (they hold {', '.join(inputs)}): it "
            f"cannot {verb} the {modality}; check the prompt template and the processor"
        )
    changed = {**inputs, **{k: _noise_like(inputs[k]) for k in keys}}
    before, after = _logits(run(inputs)), _logits(run(changed))
    _refuse_nan(before, "the model's output holds NaN")
    _refuse_nan(after, f"with {keys[0]} replaced by noise the model's output holds NaN")
    # Logits of what may never be written are -inf in both.
    same = before.isfinite() & after.isfinite()
    change = float((after - before)[same].abs().max()) if same.any() else 0.0
    if not change > LIVE_SHARE * float(before[same].abs().max() if same.any() else 0.0):
        raise UnsupportedModelError(
            f"the model does not {verb} its {modality}: replacing {keys[0]} by noise changes no "
            f"logit (largest change {change:.1e}); check the prompt's {modality} token"
        )
    return change


def _refuse_nan(logits: Tensor, said: str) -> None:
    if logits.isnan().any():
        raise NotFiniteError(
            f"{said} ({int(logits.isnan().sum())} of {logits.numel()} numbers); in half precision "
            "give model.dtype=float32 or bfloat16"
        )


@torch.no_grad()
def eager_difference(
    run: Callable[[], Any],
    module: nn.Module,
    plans: Sequence[Mapping[str, AttentionPlan]],
    results: Sequence[Mapping[str, Captured]],
    *,
    query_rows: int | None = None,
    attention_mask: Tensor | None = None,
) -> dict[str, float]:
    """Return how far the model's own eager forward is from what was captured of the prompt.

    Both forwards are right to their dtype's rounding, which grows over the layers; in half
    precision the difference may be large. The model runs again with eager attention; each layer's
    pattern is
    reduced as it appears, so no more than one layer's is held. Where even that is too much,
    `query_rows` compares a sample of query rows: the model's own eager function on these rows
    alone, during a fused forward.

    Args:
        run: runs the same forward again, without gradients.
        module: the model that `run` calls.
        plans: as given to `watch_attention`; plans of decode steps are left out.
        results: what it returned.
        query_rows: how many query rows to compare; None for all.
        attention_mask: as given to `watch_attention`.

    Returns:
        Plan name -> largest absolute difference over rows and layers; for plans whose result is
        whole numbers (indices), the share that differs.
    """
    chosen = [{n: p for n, p in row.items() if p.when == "prefill"} for row in plans]
    options: dict[str, Any] = {"attention_mask": attention_mask}
    if query_rows is not None:
        chosen = [{n: thin_queries(p, query_rows) for n, p in row.items()} for row in chosen]
        with watch_attention(module, chosen, **options) as again:
            run()
        results = again.results
    method = "eager" if query_rows is None else "eager_rows"
    with watch_attention(module, chosen, method=method, **options) as eager:
        run()
    worst: dict[str, float] = {}
    for row, plan_row in enumerate(chosen):
        for name in plan_row:
            error = difference(results[row][name].values, eager.results[row][name].values)
            worst[name] = max(worst.get(name, 0.0), error)
    return worst


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference; for whole numbers the share that differs.

    Numbers that are not finite on both sides count as equal, on one side as infinitely far.
    """
    if not ours.is_floating_point():
        return float((ours != theirs).float().mean())
    theirs = theirs.to(ours)
    gap = (ours - theirs).abs()
    gap[ours.isnan() & theirs.isnan()] = 0.0
    return float(torch.nan_to_num(gap, nan=torch.inf).max())


def thin_queries(plan: AttentionPlan, count: int) -> AttentionPlan:
    """Return the plan with at most `count` of its queries, evenly spread.

    Raises:
        ConfigError: if the plan names no queries (all of them are meant): name them first.
    """
    if plan.queries == "last":
        return plan
    if plan.queries is None:
        raise ConfigError("eager_difference with query_rows needs plans that name their queries")
    n = len(plan.queries)
    chosen = sorted({round(i * (n - 1) / max(1, count - 1)) for i in range(min(count, n))})
    return replace(plan, queries=tuple(plan.queries[p] for p in chosen))


def _noise_like(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
    spread = tensor.float().std()
    return noise * (spread if float(spread) > 0 else 1.0)


def _logits(output: Any) -> Tensor:
    return (output if isinstance(output, Tensor) else output.logits).float()
