"""QD-DETR with gated audio: the whole network, with the module names of users' checkpoints.

Definition: QD-DETR (Moon et al. 2023, arXiv 2303.13874, and its public repository), with the fusion
of `qd_detr_fusion.py` between the input projections and the text-to-video encoder. Text padding is
masked in every attention. The published code also adds a mask that pairs heads with other samples
of the batch where a sample is padded in clips and words; at batch 1 it does nothing, and here it
is left out, so that a sample's prediction never depends on its neighbours.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from interp_lab.errors import UnsupportedModelError, did_you_mean
from interp_lab.models.qd_detr.attention import ACTIVATIONS, MLP, input_projection
from interp_lab.models.qd_detr.fusion import GATING_TYPES, Fusion
from interp_lab.models.qd_detr.positions import TextPositions, clip_positions
from interp_lab.models.qd_detr.transformer import Transformer, inverse_sigmoid

FOREGROUND = 0  # of the two classes: 0 = a moment, 1 = nothing


@dataclass(frozen=True)
class Architecture:
    """What a QD-DETR is built from, under the names of its training options.

    Args:
        hidden_dim: width d; a multiple of 4 and of every head count.
        nheads, fusion_n_heads: heads of the transformer and of the fusion.
        enc_layers: layers of the text-to-video encoder, and of the video encoder.
        dec_layers, dim_feedforward, num_queries: of the decoder and the transformer.
        n_input_proj: layers of each input projection, 1 to 3.
        max_q_l, max_v_l: most words and clips.
        t_feat_dim, v_feat_dim, a_feat_dim: widths of the features, with the two time columns.
        gating_type: one of `GATING_TYPES`.
        fusion_layers: blocks of the fusion.
        use_txt_pos: whether words carry learned positions.
        activation: of the transformer's feed-forward steps.
        aux_loss: whether earlier decoder layers are trained too.
        span_loss_type: `l1`; the other published one predicts no (centre, width).
        contrastive_align_loss, contrastive_hdim: whether heads of this loss are in the checkpoint.
        pre_norm: must be off; the published code has no working version.
        dropout, input_dropout: while training.

    Raises:
        UnsupportedModelError: for values that no such network has.
    """

    t_feat_dim: int
    v_feat_dim: int
    a_feat_dim: int
    gating_type: str
    hidden_dim: int = 256
    nheads: int = 8
    enc_layers: int = 2
    dec_layers: int = 2
    dim_feedforward: int = 1024
    num_queries: int = 10
    n_input_proj: int = 2
    max_q_l: int = 32
    max_v_l: int = 75
    fusion_layers: int = 4
    fusion_n_heads: int = 8
    use_txt_pos: bool = False
    activation: str = "prelu"
    aux_loss: bool = True
    span_loss_type: str = "l1"
    contrastive_align_loss: bool = False
    contrastive_hdim: int = 64
    pre_norm: bool = False
    dropout: float = 0.1
    input_dropout: float = 0.5

    def __post_init__(self) -> None:
        for name, known in (("gating_type", GATING_TYPES), ("activation", tuple(ACTIVATIONS))):
            value = getattr(self, name)
            if value not in known:
                raise UnsupportedModelError(
                    f"QD-DETR {name}={value!r}: give one of {', '.join(known)}."
                    f"{did_you_mean(str(value), known)}"
                )
        if self.span_loss_type != "l1" or self.pre_norm:
            raise UnsupportedModelError(
                f"QD-DETR span_loss_type={self.span_loss_type}, pre_norm={self.pre_norm}: only l1 "
                "without pre_norm predicts moments as (centre, width)"
            )
        heads = math.lcm(4, self.nheads, self.fusion_n_heads)
        if self.hidden_dim % heads:
            raise UnsupportedModelError(
                f"QD-DETR hidden_dim={self.hidden_dim}: not a multiple of 4, nheads={self.nheads} "
                f"and fusion_n_heads={self.fusion_n_heads}"
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all values."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str) -> "Architecture":
        """Return the architecture of these values; others are left aside.

        Raises:
            UnsupportedModelError: if one that has no default is missing.
        """
        known = {k: v for k, v in values.items() if k in cls.names() and v is not None}
        needed = ("t_feat_dim", "v_feat_dim", "a_feat_dim", "gating_type")
        missing = [name for name in needed if name not in known]
        if missing:
            raise UnsupportedModelError(f"{where}: {', '.join(missing)} not known; give it")
        return cls(**known)


class QdDetrNetwork(nn.Module):
    """The network.

    Args:
        architecture: sizes and kinds.
        masked: whether the fusion's means over time leave out padding; false is the origin's.
    """

    def __init__(self, architecture: Architecture, masked: bool = True) -> None:
        super().__init__()
        a = architecture
        d = a.hidden_dim
        self.architecture = a
        self.global_rep_token = nn.Parameter(torch.randn(d))
        self.global_rep_pos = nn.Parameter(torch.randn(d))
        self.transformer = Transformer(
            d, a.nheads, a.enc_layers, a.dec_layers, a.dim_feedforward, a.dropout, a.activation
        )
        for parameter in self.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.txt_position_embed = TextPositions(a.max_q_l, d, a.input_dropout)
        self.span_embed = MLP(d, d, 2, 3)
        self.class_embed = nn.Linear(d, 2)
        self.query_embed = nn.Embedding(a.num_queries, 2)
        options = (d, a.n_input_proj, a.input_dropout)
        self.input_txt_proj = input_projection(a.t_feat_dim, *options)
        self.input_vid_proj = input_projection(a.v_feat_dim, *options)
        self.input_aud_proj = input_projection(a.a_feat_dim, *options)
        self.fusion = Fusion(d, a.fusion_n_heads, a.fusion_layers, a.gating_type, masked)
        self.saliency_proj1 = nn.Linear(d, d)
        self.saliency_proj2 = nn.Linear(d, d)
        if a.contrastive_align_loss:
            # Heads of a training loss; no prediction depends on them.
            self.contrastive_align_projection_query = nn.Linear(d, a.contrastive_hdim)
            self.contrastive_align_projection_txt = nn.Linear(d, a.contrastive_hdim)
            self.contrastive_align_projection_vid = nn.Linear(d, a.contrastive_hdim)

    @property
    def avigate_fusion(self) -> Fusion:
        """The fusion, by the name that scripts of the original tool have for it."""
        return self.fusion

    def forward(
        self,
        src_txt: Tensor,
        src_txt_mask: Tensor,
        src_vid: Tensor,
        src_vid_mask: Tensor,
        src_aud: Tensor,
        src_aud_mask: Tensor,
    ) -> dict[str, Any]:
        """Return the predictions.

        Args:
            src_txt: word features (batch, words, t_feat_dim).
            src_vid, src_aud: features of the same clips (batch, clips, v_feat_dim / a_feat_dim).
            src_txt_mask, src_vid_mask, src_aud_mask: (batch, length), 1 = valid.

        Returns:
            pred_logits (batch, queries, 2), class 0 is a moment; pred_spans (batch, queries, 2) as
            (centre, width) in 0..1 of the clips; saliency_scores (batch, clips); aux_outputs, the
            same two of the earlier decoder layers; video_mask. While training also
            saliency_scores_neg, of each video with the next sample's words.
        """
        video, audio = self.input_vid_proj(src_vid), self.input_aud_proj(src_aud)
        clips = self.fusion(video, audio, src_vid_mask, src_aud_mask)
        words = self.input_txt_proj(src_txt)
        position = clip_positions(src_vid_mask, self.architecture.hidden_dim).to(clips.dtype)
        memory, saliency = self._read(clips, position, src_vid_mask, words, src_txt_mask)
        start = self.query_embed.weight.sigmoid().expand(len(clips), -1, -1)
        contents, references = self.transformer.decoder(start, memory, position, src_vid_mask == 0)
        logits = self.class_embed(contents)
        spans = (self.span_embed(contents) + inverse_sigmoid(references)).sigmoid()
        outputs: dict[str, Any] = {
            "pred_logits": logits[-1],
            "pred_spans": spans[-1],
            "saliency_scores": saliency,
            "video_mask": src_vid_mask,
            "aux_outputs": [
                {"pred_logits": a, "pred_spans": b}
                for a, b in zip(logits[:-1], spans[:-1], strict=True)
            ],
        }
        if self.training:
            others, mask = words.roll(-1, 0), src_txt_mask.roll(-1, 0)
            unrelated = self._read(clips, position, src_vid_mask, others, mask)[1]
            outputs["saliency_scores_neg"] = unrelated
        return outputs

    def _read(
        self, clips: Tensor, position: Tensor, clips_mask: Tensor, words: Tensor, words_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the clips that have read the words (batch, clips, d), and their saliency."""
        d = self.architecture.hidden_dim
        uses_positions = self.architecture.use_txt_pos
        memory, summary = self.transformer.encode(
            clips,
            words,
            position,
            self.txt_position_embed(words) if uses_positions else torch.zeros_like(words),
            clips_mask == 0,
            words_mask == 0,
            self.global_rep_token.expand(len(clips), 1, d),
            self.global_rep_pos.expand(len(clips), 1, d),
        )
        summed = self.saliency_proj2(summary)[:, None]
        return memory, (self.saliency_proj1(memory) * summed).sum(-1) / math.sqrt(d)
