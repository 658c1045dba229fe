"""The transformer of QD-DETR: words into clips, clips among themselves, moments out of clips.

Definition: Moon et al. 2023 (arXiv 2303.13874) and its public repository. A moment query carries a
reference (centre, width) in 0..1 that every decoder layer refines.
"""

from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.models.qd_detr.attention import (
    MLP,
    DecoderLayer,
    EncoderLayer,
    TextToVideoLayer,
)
from interp_lab.models.qd_detr.positions import reference_positions


def inverse_sigmoid(x: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return the logit of x, with x and 1 - x kept at `epsilon` or more."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=epsilon) / (1 - x).clamp(min=epsilon))


class Layers(nn.Module):
    """Layers under the name `layers`, as checkpoints have them."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Decoder(nn.Module):
    """Turns moment queries into moments, layer by layer."""

    def __init__(
        self, d: int, n_heads: int, n_layers: int, ffn: int, dropout: float, activation: str
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(d, n_heads, ffn, dropout, activation, first=i == 0)
            for i in range(n_layers)
        )
        self.norm = nn.LayerNorm(d)
        self.query_scale = MLP(d, d, d, 2)
        self.ref_point_head = MLP(d, d, d, 2)
        self.bbox_embed = MLP(d, d, 2, 3)
        self.ref_anchor_head = MLP(d, d, 1, 2)
        # As published: the weights start as all others do, this bias at zero.
        last: Any = self.bbox_embed.layers[-1]
        nn.init.zeros_(last.bias)
        self.d = d

    def forward(
        self, reference: Tensor, memory: Tensor, position: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the queries after each layer and the references that each layer started from.

        Args:
            reference: (batch, queries, 2), (centre, width) in 0..1.
            memory, position: clips and their positions, (batch, clips, d).
            padding: (batch, clips), true = padded.

        Returns:
            Content (layers, batch, queries, d) after the final norm, and references
            (layers, batch, queries, 2).
        """
        x = torch.zeros(*reference.shape[:2], self.d, dtype=memory.dtype, device=memory.device)
        contents: list[Tensor] = []
        references = [reference]
        for index, layer in enumerate(self.layers):
            sine = reference_positions(reference, self.d).to(memory.dtype)
            query_position = self.ref_point_head(sine)
            if index > 0:
                sine = sine * self.query_scale(x)
            # A query that expects a narrow moment attends more narrowly.
            sine = sine * (self.ref_anchor_head(x).sigmoid() / reference[..., 1:])
            x = layer(x, query_position, sine, memory, position, padding)
            contents.append(self.norm(x))
            if index + 1 < len(self.layers):
                refined = (self.bbox_embed(x) + inverse_sigmoid(reference)).sigmoid()
                # What is predicted from a reference trains it; the next layer's input does not.
                references.append(refined)
                reference = refined.detach()
        return torch.stack(contents), torch.stack(references)


class Transformer(nn.Module):
    """Text-to-video encoder, video encoder and decoder.

    Args:
        d, n_heads, ffn, dropout, activation: of every layer.
        enc_layers: layers of each encoder.
        dec_layers: layers of the decoder.
    """

    def __init__(
        self,
        d: int,
        n_heads: int,
        enc_layers: int,
        dec_layers: int,
        ffn: int,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        options = (d, n_heads, ffn, dropout, activation)
        self.t2v_encoder = Layers([TextToVideoLayer(*options) for _ in range(enc_layers)])
        self.encoder = Layers([EncoderLayer(*options) for _ in range(enc_layers)])
        self.decoder = Decoder(d, n_heads, dec_layers, ffn, dropout, activation)

    def encode(
        self,
        clips: Tensor,
        words: Tensor,
        clips_position: Tensor,
        words_position: Tensor,
        clips_padding: Tensor,
        words_padding: Tensor,
        summary: Tensor,
        summary_position: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the clips (batch, clips, d) and the summary token (batch, d), both encoded.

        Args:
            clips, clips_position: (batch, clips, d).
            words, words_position: (batch, words, d).
            clips_padding, words_padding: (batch, length), true = padded.
            summary, summary_position: the token that sums up the video, (batch, 1, d); it joins
                the clips after the text has been read.
        """
        for layer in self.t2v_encoder.layers:
            clips = layer(clips, clips_position, words, words_position, words_padding)
        memory = torch.cat([summary, clips], dim=1)
        position = torch.cat([summary_position, clips_position], dim=1)
        present = torch.zeros_like(clips_padding[:, :1])
        padding = torch.cat([present, clips_padding], dim=1)
        for layer in self.encoder.layers:
            memory = layer(memory, position, memory, position, padding)
        return memory[:, 1:], memory[:, 0]
