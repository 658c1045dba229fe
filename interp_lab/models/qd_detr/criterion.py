"""The criterion of QD-DETR: which prediction answers for which moment, and how wrong it is.

Definition: Moment-DETR and QD-DETR (arXiv 2107.09609, 2303.13874) with the published weights.
`moment_loss` of the last decoder layer is the loss that a result states for one sample; training
adds the earlier layers and the saliency terms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from interp_lab.models.qd_detr.network import FOREGROUND

# Published weights, the same in the matching and in the loss.
SPAN_WEIGHT, GIOU_WEIGHT, LABEL_WEIGHT = 10.0, 1.0, 4.0
# A query that answers for no moment counts this much in the class term.
BACKGROUND_WEIGHT = 0.1
SALIENCY_MARGIN = 0.2
SALIENCY_TEMPERATURE = 0.5
# Saliency labels are sums of three annotators' scores, 0 to 12; each rank contrasts its own clips.
RANKS = range(1, 12)


@dataclass(frozen=True)
class Target:
    """What is right for one sample.

    Args:
        spans: (n_moments, 2) as (centre, width) in 0..1 of the clips.
        saliency: (clips,), 0 to 12, or None.
    """

    spans: Tensor
    saliency: Tensor | None = None


def to_edges(spans: Tensor) -> Tensor:
    """Return (start, end) of (centre, width), (..., 2)."""
    centre, width = spans.unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], dim=-1)


def to_centres(edges: Tensor) -> Tensor:
    """Return (centre, width) of (start, end), (..., 2)."""
    start, end = edges.unbind(-1)
    return torch.stack([(start + end) / 2, end - start], dim=-1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU of spans as (start, end), -1 to 1; (..., 2) are broadcast."""
    low, high = torch.maximum(a[..., 0], b[..., 0]), torch.minimum(a[..., 1], b[..., 1])
    overlap = (high - low).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - overlap
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    return overlap / union - (hull - union) / hull


@torch.no_grad()
def match(logits: Tensor, spans: Tensor, targets: Sequence[Tensor]) -> list[tuple[Any, Any]]:
    """Return per sample the queries and the moments that belong together at the least cost.

    Args:
        logits: (batch, queries, 2).
        spans: (batch, queries, 2), (centre, width).
        targets: (n_moments, 2) each, (centre, width).
    """
    right = torch.cat(list(targets))
    flat = spans.flatten(0, 1)
    cost = -LABEL_WEIGHT * logits.softmax(-1)[..., FOREGROUND].flatten()[:, None]
    cost = cost + SPAN_WEIGHT * torch.cdist(flat, right, p=1)
    cost = cost - GIOU_WEIGHT * generalised_iou(to_edges(flat)[:, None], to_edges(right)[None])
    costs = cost.unflatten(0, spans.shape[:2]).float().cpu()
    parts = costs.split([len(t) for t in targets], dim=-1)
    return [linear_sum_assignment(part[row].numpy()) for row, part in enumerate(parts)]


def moment_loss(outputs: Mapping[str, Any], targets: Sequence[Target]) -> Tensor:
    """Return the loss of one decoder layer's predictions, a number.

    10 times the mean absolute error of (centre, width) over the matched moments, plus 1 minus
    their mean generalised IoU, plus 4 times the class cross-entropy, averaged over all queries with
    weight 0.1 where a query answers for no moment.

    Args:
        outputs: pred_logits (batch, queries, 2) and pred_spans (batch, queries, 2).
        targets: one a sample, each with at least one moment.
    """
    logits, spans = outputs["pred_logits"], outputs["pred_spans"]
    pairs = match(logits, spans, [t.spans for t in targets])
    rows = torch.cat([torch.full((len(q),), row) for row, (q, _) in enumerate(pairs)])
    queries = torch.cat([torch.as_tensor(q) for q, _ in pairs])
    predicted = spans[rows, queries]
    right = torch.cat([t.spans[m] for t, (_, m) in zip(targets, pairs, strict=True)])
    classes = torch.full(logits.shape[:2], 1 - FOREGROUND, device=logits.device)
    classes[rows, queries] = FOREGROUND
    weights = torch.ones(2, device=logits.device, dtype=logits.dtype)
    weights[1 - FOREGROUND] = BACKGROUND_WEIGHT
    label = F.cross_entropy(logits.transpose(1, 2), classes, weights, reduction="none").mean()
    overlap = generalised_iou(to_edges(predicted), to_edges(right))
    span = (predicted - right).abs().mean()
    return SPAN_WEIGHT * span + GIOU_WEIGHT * (1 - overlap).mean() + LABEL_WEIGHT * label


def saliency_loss(outputs: Mapping[str, Any], saliency: Tensor) -> Tensor:
    """Return the saliency terms, a number.

    Clips of each rank against all lower ones and the same video with other words (softmax at
    temperature 0.5, divided by 12 as published), the other words' scores pushed below zero, and a
    margin of 0.2 between the best and the worst clip. The published margin also takes clips by
    lot; here only the best and worst, so that it is the same every time.

    Args:
        outputs: saliency_scores, saliency_scores_neg and video_mask, each (batch, clips).
        saliency: labels (batch, clips), 0 to 12.
    """
    mask = outputs["video_mask"].float()
    scores, others = outputs["saliency_scores"], outputs["saliency_scores_neg"]
    unrelated = (F.softplus(others) * mask).sum(1).mean()
    both = torch.cat([scores, others], 1).masked_fill(torch.cat([mask, mask], 1) == 0, -1e3)
    labels = torch.cat([saliency, torch.zeros_like(saliency)], 1)
    log_share = (both / SALIENCY_TEMPERATURE).log_softmax(1)
    ranked = scores.new_zeros(())
    for rank in RANKS:
        positive = (labels >= rank).float()
        count = positive.sum(1)
        mean = (positive * log_share).sum(1) / count.clamp(min=1)
        ranked = ranked - mean.mean() / (len(RANKS) + 1)
    best = saliency.masked_fill(mask == 0, -1).argmax(1, keepdim=True)
    worst = saliency.masked_fill(mask == 0, 13).argmin(1, keepdim=True)
    gap = scores.gather(1, best) - scores.gather(1, worst)
    return unrelated + ranked + 2 * (SALIENCY_MARGIN - gap).clamp(min=0).mean()


def training_loss(outputs: Mapping[str, Any], targets: Sequence[Target]) -> Tensor:
    """Return what training minimises: all decoder layers' moments, and the saliency if known."""
    loss = moment_loss(outputs, targets)
    for earlier in outputs["aux_outputs"]:
        loss = loss + moment_loss(earlier, targets)
    labels = [t.saliency for t in targets if t.saliency is not None]
    if len(labels) == len(targets):
        padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)
        loss = loss + saliency_loss(outputs, padded)
    return loss
