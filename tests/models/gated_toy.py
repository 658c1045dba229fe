"""A network of a user's own with gates, and its data set: 20 lines each, of known arithmetic."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from interp_lab.datasets.base import Sample


class Fusion(nn.Module):
    """video + tanh(gate) * audio, and the same with a small feed-forward step, in each layer."""

    def __init__(self, d: int = 4, layers: int = 2, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention_gate = nn.ModuleList(nn.Linear(2 * d, channels) for _ in range(layers))
        self.ffn_gate = nn.ModuleList(nn.Linear(2 * d, channels) for _ in range(layers))
        self.ffn = nn.ModuleList(nn.Linear(d, d) for _ in range(layers))

    def forward(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        for one, other, ffn in zip(self.attention_gate, self.ffn_gate, self.ffn, strict=True):
            video = video + torch.tanh(one(torch.cat([video, audio], -1))) * audio
            video = video + torch.tanh(other(torch.cat([video, audio], -1))) * ffn(video)
        return video


class Clips:
    """Samples of random video and audio; every third one has clips of another number."""

    def __init__(self, n: int = 6, d: int = 4, broken: int = -1) -> None:
        self.n, self.d, self.broken = n, d, broken

    def ids(self) -> Sequence[str]:
        return [f"clip_{i}" for i in range(self.n)]

    def counts(self) -> dict[str, int]:
        return {}

    def load(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = (7 if index % 3 == 2 else 5, self.d)
        video, audio = (rng.normal(size=size).astype(np.float32) for _ in range(2))
        if index == self.broken:
            video[0, 0] = np.nan
        return Sample(f"clip_{index}", facts={"video": video, "audio": audio})
