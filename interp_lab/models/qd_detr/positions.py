"""Where things are in time: sine and learned position embeddings of QD-DETR (arXiv 2303.13874)."""

import math

import torch
from torch import Tensor, nn

TEMPERATURE = 10_000.0
# The epsilon of the published normalisation of clip positions.
EPSILON = 1e-6


def sine_features(position: Tensor, width: int) -> Tensor:
    """Return sines and cosines in turn of a position, (..., width).

    Channels 2i and 2i + 1 are sin and cos of position / TEMPERATURE ** (2 i / width).
    """
    channel = torch.arange(width, dtype=torch.float32, device=position.device)
    angle = position[..., None].float() / TEMPERATURE ** (2 * (channel // 2) / width)
    pairs = torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1)
    return pairs.flatten(-2)


def clip_positions(mask: Tensor, d: int) -> Tensor:
    """Return the position embedding of clips, (batch, clips, d).

    Valid clips are counted from 1 and scaled so that the last one stands at 2 pi.

    Args:
        mask: (batch, clips), 1 = valid.
        d: width.
    """
    count = mask.cumsum(1, dtype=torch.float32)
    return sine_features(count / (count[:, -1:] + EPSILON) * 2 * math.pi, d)


def reference_positions(reference: Tensor, d: int) -> Tensor:
    """Return the embedding of (centre, width) references in 0..1: (..., 2) to (..., d).

    Half of the channels tell the centre, half the width.
    """
    embedded = sine_features(reference * 2 * math.pi, d // 2)
    return embedded.flatten(-2)


class TextPositions(nn.Module):
    """Learned positions of query words, added to the words and normalised.

    A checkpoint holds their weights also where `use_txt_pos` is off and they are not used.
    """

    def __init__(self, max_words: int, d: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_words, d)
        self.LayerNorm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor) -> Tensor:
        """Return the embedding of words (batch, words, d), in the same shape."""
        place = torch.arange(words.shape[1], device=words.device)
        return self.dropout(self.LayerNorm(words + self.position_embeddings(place)))
