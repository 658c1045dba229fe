"""The layers of QD-DETR: text-to-video attention, video self-attention, and the moment decoder.

The decoder is that of conditional DETR and DAB-DETR with one dimension of space: content and
position are projected apart, and in cross attention they are laid side by side within each head.
All tensors have the batch first. A mask is true where something is padding.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
}


class Projection(nn.Module):
    """Layer norm, dropout, linear and, if asked for, ReLU: one step of an input projection."""

    def __init__(self, width: int, d: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(width)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, d))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, length, d) of (batch, length, width)."""
        x = self.net(self.LayerNorm(x))
        return F.relu(x) if self.relu else x


def input_projection(width: int, d: int, n_layers: int, dropout: float) -> nn.Sequential:
    """Return `n_layers` projections to width d, all but the last with ReLU."""
    widths = [width] + [d] * (n_layers - 1)
    return nn.Sequential(
        *(Projection(w, d, dropout, i < n_layers - 1) for i, w in enumerate(widths))
    )


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, width: int, hidden: int, out: int, n_layers: int) -> None:
        super().__init__()
        widths = [width] + [hidden] * (n_layers - 1) + [out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., width)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class EncoderLayer(nn.Module):
    """A post-norm transformer layer whose queries and keys carry positions, and values do not.

    It serves both encoders: with clips as queries and words as keys (text to video), and with
    clips as both.
    """

    def __init__(self, d: int, n_heads: int, ffn: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d, n_heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(d, ffn)
        self.linear2 = nn.Linear(ffn, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self, x: Tensor, position: Tensor, values: Tensor, values_position: Tensor, padding: Tensor
    ) -> Tensor:
        """Return (batch, queries, d).

        Args:
            x, position: the queries' content and positions, (batch, queries, d).
            values, values_position: what is attended to, (batch, keys, d).
            padding: (batch, keys), true = padded.
        """
        attended = self.self_attn(
            x + position, values + values_position, values, key_padding_mask=padding
        )[0]
        x = self.norm1(x + self.dropout(attended))
        return self.norm2(x + self.dropout(self._ffn(x)))

    def _ffn(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TextToVideoLayer(EncoderLayer):
    """Clips attend to the query's words.

    In the published layer the norm before the feed-forward step feeds that step alone: the sum of
    clips and attention goes round it without the norm.
    """

    def forward(
        self, x: Tensor, position: Tensor, values: Tensor, values_position: Tensor, padding: Tensor
    ) -> Tensor:
        """Return (batch, clips, d); arguments as in `EncoderLayer`."""
        attended = self.self_attn(
            x + position, values + values_position, values, key_padding_mask=padding
        )[0]
        x = x + self.dropout(attended)
        return self.norm2(x + self.dropout(self._ffn(self.norm1(x))))


class ProjectedAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come projected; only the output's
    projection is its own. Keys may be wider than values.
    """

    def __init__(self, d: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.out_proj = nn.Linear(d, d)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """Return (batch, queries, d); padding (batch, keys) is true where a key is padded."""
        heads = [x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in (query, key, value)]
        mask = None if padding is None else ~padding[:, None, None, :]
        out = F.scaled_dot_product_attention(
            *heads, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    """One step of the moment queries: they see each other, then the clips.

    Args:
        first: whether this is the first layer, where positions are also added to the content; the
            later layers have no projection for it.
    """

    def __init__(
        self, d: int, n_heads: int, ffn: int, dropout: float, activation: str, first: bool
    ) -> None:
        super().__init__()
        self.sa_qcontent_proj = nn.Linear(d, d)
        self.sa_qpos_proj = nn.Linear(d, d)
        self.sa_kcontent_proj = nn.Linear(d, d)
        self.sa_kpos_proj = nn.Linear(d, d)
        self.sa_v_proj = nn.Linear(d, d)
        self.self_attn = ProjectedAttention(d, n_heads, dropout)
        self.ca_qcontent_proj = nn.Linear(d, d)
        self.ca_kcontent_proj = nn.Linear(d, d)
        self.ca_kpos_proj = nn.Linear(d, d)
        self.ca_v_proj = nn.Linear(d, d)
        self.ca_qpos_sine_proj = nn.Linear(d, d)
        self.ca_qpos_proj = nn.Linear(d, d) if first else None
        self.cross_attn = ProjectedAttention(d, n_heads, dropout)
        self.linear1 = nn.Linear(d, ffn)
        self.linear2 = nn.Linear(ffn, d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]()
        self.n_heads = n_heads

    def forward(
        self,
        x: Tensor,
        query_position: Tensor,
        query_sine: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        padding: Tensor,
    ) -> Tensor:
        """Return the queries' content (batch, queries, d).

        Args:
            x: the queries' content so far.
            query_position: their positions, learned from the sine embedding.
            query_sine: the sine embedding itself, scaled by content and by width.
            memory, memory_position: the clips and their positions, (batch, clips, d).
            padding: (batch, clips), true = padded.
        """
        attended = self.self_attn(
            self.sa_qcontent_proj(x) + self.sa_qpos_proj(query_position),
            self.sa_kcontent_proj(x) + self.sa_kpos_proj(query_position),
            self.sa_v_proj(x),
        )
        x = self.norm1(x + self.dropout(attended))
        query, key = self.ca_qcontent_proj(x), self.ca_kcontent_proj(memory)
        key_position = self.ca_kpos_proj(memory_position)
        if self.ca_qpos_proj is not None:
            query = query + self.ca_qpos_proj(query_position)
            key = key + key_position
        attended = self.cross_attn(
            self._side_by_side(query, self.ca_qpos_sine_proj(query_sine)),
            self._side_by_side(key, key_position),
            self.ca_v_proj(memory),
            padding,
        )
        x = self.norm2(x + self.dropout(attended))
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))

    def _side_by_side(self, content: Tensor, position: Tensor) -> Tensor:
        """Return each head's content followed by its position, (batch, length, 2 d)."""
        heads = [x.unflatten(-1, (self.n_heads, -1)) for x in (content, position)]
        return torch.cat(heads, dim=-1).flatten(2)
