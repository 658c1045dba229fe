"""A network of a user's own, with one gate: what a YAML has to find."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from qd_detr_cases import SMALL
from torch import Tensor, nn

from interp_lab.datasets.base import Sample
from interp_lab.models.qd_detr.model import Truth
from interp_lab.models.qd_detr.network import QdDetrNetwork


class TwoStreams(nn.Module):
    """Adds gated audio to video; its gate's last module puts out a logit."""

    def __init__(self, width: int, audio_width: int) -> None:
        super().__init__()
        self.see, self.hear = nn.Linear(width, 8), nn.Linear(audio_width, 8)
        self.gate = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
        self.head = nn.Linear(8, 2)

    def forward(self, frames: Tensor, sound: Tensor, frames_mask: Tensor) -> Tensor:
        v, a = self.see(frames), self.hear(sound)
        gate = torch.sigmoid(self.gate(torch.cat([v, a], -1)))
        fused = (v + gate * a) * frames_mask[..., None]
        return self.head(fused.sum(1) / frames_mask.sum(1, keepdim=True))


def small_qd_detr(gating_type: str) -> nn.Module:
    """A class may also be a function that makes a network."""
    return QdDetrNetwork(replace(SMALL, gating_type=gating_type))


def prepare_ones(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A user's own way to feed the network."""
    n = len(samples)
    return {
        "frames": torch.ones(n, 2, 5),
        "sound": torch.ones(n, 2, 3),
        "frames_mask": torch.ones(n, 2),
    }


def sum_times_duration(output: Tensor, truths: Sequence[Truth]) -> list[float]:
    """A user's own way to read its output."""
    return [float(row.sum()) * truth.duration for row, truth in zip(output, truths, strict=True)]
