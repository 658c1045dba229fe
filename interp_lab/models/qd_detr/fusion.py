"""How audio enters the video features of a QD-DETR: fusion blocks with learned gates.

Two definitions stand here. The variant (`global`, `clipwise`, `elementwise`) projects the audio of
the same clip and adds it through a tanh gate; the paper's block (`paper`; AVIGATE, arXiv
2504.02397) attends to all audio. Module names are those of the checkpoints that users have.

Every gate is what a named module puts out: the variant's MLPs give the logit of a tanh gate, the
paper's gate modules give the gate itself. So a gate is watched by a plain forward hook.
"""

import torch
from torch import Tensor, nn

GATING_TYPES = ("global", "clipwise", "elementwise", "paper")


def time_mean(features: Tensor, mask: Tensor, masked: bool) -> Tensor:
    """Return the mean over time, (batch, 1, d).

    Args:
        features: (batch, clips, d).
        mask: (batch, clips), 1 = valid.
        masked: leave padded clips out. Without it a gate depends on what else is in the batch.
    """
    if not masked:
        return features.mean(1, keepdim=True)
    weights = mask.to(features)[..., None]
    return (features * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


class GatingFunction(nn.Module):
    """The two gates of a block of the variant: tanh of an MLP on [video; audio].

    Args:
        d: width of the features.
        gating_type: `global` (one gate a sample), `clipwise` (one a clip) or `elementwise` (one a
            clip and channel).
        masked: see `time_mean`; only `global` takes a mean.
    """

    def __init__(self, d: int, gating_type: str, masked: bool = True) -> None:
        super().__init__()
        width = d if gating_type == "elementwise" else 1
        self.gating_type = gating_type
        self.masked = masked
        self.mlp_mha = _gate_mlp(d, width)
        self.mlp_ffn = _gate_mlp(d, width)

    def forward(
        self, video: Tensor, audio: Tensor, video_mask: Tensor, audio_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the attention gate and the ffn gate, each (batch, 1 or clips, 1 or d)."""
        if self.gating_type == "global":
            video = time_mean(video, video_mask, self.masked)
            audio = time_mean(audio, audio_mask, self.masked)
        joint = torch.cat([video, audio], dim=-1)
        return torch.tanh(self.mlp_mha(joint)), torch.tanh(self.mlp_ffn(joint))


class GatedBlock(nn.Module):
    """One block of the variant.

    With v the video and a the audio of the same clip, z = v + g_mha * out(proj(norm1 a)),
    y = z + g_ffn * ffn1(norm2 z), r = y + SelfAttention(norm3 y), and the output r + ffn2(norm4 r).
    """

    def __init__(self, d: int, n_heads: int, gating_type: str, masked: bool = True) -> None:
        super().__init__()
        self.gating_function = GatingFunction(d, gating_type, masked)
        self.a_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)
        self.ffn1 = _relu_ffn(d)
        self.self_attention = nn.MultiheadAttention(d, n_heads, batch_first=True)
        self.ffn2 = _relu_ffn(d)
        self.norm1 = nn.LayerNorm(d)
        self.norm2 = nn.LayerNorm(d)
        self.norm3 = nn.LayerNorm(d)
        self.norm4 = nn.LayerNorm(d)

    def forward(
        self, video: Tensor, audio: Tensor, video_mask: Tensor, audio_mask: Tensor
    ) -> Tensor:
        """Return the fused video (batch, clips, d); masks are 1 = valid."""
        g_mha, g_ffn = self.gating_function(video, audio, video_mask, audio_mask)
        z = video + g_mha * self.out_proj(self.a_proj(self.norm1(audio)))
        y = z + g_ffn * self.ffn1(self.norm2(z))
        x = self.norm3(y)
        refined = self.self_attention(x, x, x, key_padding_mask=video_mask == 0)[0]
        r = y + refined
        return r + self.ffn2(self.norm4(r))


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU: x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, in the shape of x."""
        return x * torch.sigmoid(1.702 * x)


class AttentionGate(nn.Module):
    """The paper's gate of cross attention; puts out the gate itself, (batch, 1, 1)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.ag_fc = nn.Linear(2 * d, d // 2, bias=False)
        self.activation = QuickGELU()
        self.ag_proj = nn.Linear(d // 2, 1, bias=False)

    def forward(self, joint: Tensor) -> Tensor:
        """Return the gate of the means [x; other] (batch, 1, 2 d)."""
        return torch.tanh(self.ag_proj(self.activation(self.ag_fc(joint))))


class FeedForwardGate(nn.Module):
    """The paper's gate of the feed-forward step after it; puts out the gate itself."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.fg_fc = nn.Linear(2 * d, d // 2, bias=False)
        self.activation = QuickGELU()
        self.fg_proj = nn.Linear(d // 2, 1, bias=False)

    def forward(self, joint: Tensor) -> Tensor:
        """Return the gate of the means [x; other] (batch, 1, 2 d)."""
        return torch.tanh(self.fg_proj(self.activation(self.fg_fc(joint))))


class PaperBlock(nn.Module):
    """One block of the paper's gated fusion.

    x += CrossAttention(ln_3 x, audio) * attn_gate; x += cross_ff(ln_4 x) * ff_gate;
    x += SelfAttention(ln_1 x); x += mlp(ln_2 x). Both gates read the block's input.
    """

    def __init__(self, d: int, n_heads: int, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.attn_gate = AttentionGate(d)
        self.ff_gate = FeedForwardGate(d)
        self.cross_attn = nn.MultiheadAttention(d, n_heads, batch_first=True)
        self.cross_ff = _gelu_ffn(d)
        self.attn = nn.MultiheadAttention(d, n_heads, batch_first=True)
        self.mlp = _gelu_ffn(d)
        self.ln_1 = nn.LayerNorm(d)
        self.ln_2 = nn.LayerNorm(d)
        self.ln_3 = nn.LayerNorm(d)
        self.ln_4 = nn.LayerNorm(d)

    def forward(
        self, video: Tensor, audio: Tensor, video_mask: Tensor, audio_mask: Tensor
    ) -> Tensor:
        """Return the fused video (batch, clips, d); masks are 1 = valid."""
        means = [
            time_mean(video, video_mask, self.masked),
            time_mean(audio, audio_mask, self.masked),
        ]
        joint = torch.cat(means, dim=-1)
        attn_gate, ff_gate = self.attn_gate(joint), self.ff_gate(joint)
        crossed = self.cross_attn(self.ln_3(video), audio, audio, key_padding_mask=audio_mask == 0)[
            0
        ]
        x = video + crossed * attn_gate
        x = x + self.cross_ff(self.ln_4(x)) * ff_gate
        query = self.ln_1(x)
        x = x + self.attn(query, query, query, key_padding_mask=video_mask == 0)[0]
        return x + self.mlp(self.ln_2(x))


class Fusion(nn.Module):
    """Fusion blocks one after another; the audio features are the same for all of them.

    Args:
        d: width of the features.
        n_heads: heads of the attention inside a block.
        n_layers: number of blocks.
        gating_type: one of `GATING_TYPES`.
        masked: whether means over time leave out padded clips; false is the origin's behaviour.
    """

    def __init__(
        self, d: int, n_heads: int, n_layers: int, gating_type: str, masked: bool = True
    ) -> None:
        super().__init__()
        self.fusion_layers = nn.ModuleList(
            PaperBlock(d, n_heads, masked)
            if gating_type == "paper"
            else GatedBlock(d, n_heads, gating_type, masked)
            for _ in range(n_layers)
        )

    def forward(
        self, video: Tensor, audio: Tensor, video_mask: Tensor, audio_mask: Tensor
    ) -> Tensor:
        """Return the fused video, (batch, clips, d).

        Args:
            video, audio: (batch, clips, d); the variant pairs them clip by clip.
            video_mask, audio_mask: (batch, clips), 1 = valid.
        """
        for layer in self.fusion_layers:
            video = layer(video, audio, video_mask, audio_mask)
        return video


def _gate_mlp(d: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * d, d // 2), nn.ReLU(), nn.Linear(d // 2, width))


def _relu_ffn(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))


def _gelu_ffn(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 4 * d), QuickGELU(), nn.Linear(4 * d, d))
