"""tiny_avigate's network and what it is given: a small QD-DETR on synthetic event videos."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp_lab.datasets.qvhighlights_features import unit_rows, with_time
from interp_lab.models.loading import seeded
from interp_lab.models.qd_detr.criterion import Target, to_centres
from interp_lab.models.qd_detr.fusion import GatingFunction
from interp_lab.models.qd_detr.network import Architecture, QdDetrNetwork
from interp_lab.zoo.events import CLIPS, HEARD_WIDTH, SEEN_WIDTH, WORD_WIDTH, Video

CLIP_SECONDS = 2.0
FULL_SALIENCY = 12.0  # three annotators, 4 each


def architecture(gating_type: str) -> Architecture:
    """Return the sizes; everything that is not named is as published."""
    return Architecture(
        t_feat_dim=WORD_WIDTH,
        v_feat_dim=2 * SEEN_WIDTH + 2,
        a_feat_dim=HEARD_WIDTH + 2,
        gating_type=gating_type,
        hidden_dim=32,
        nheads=4,
        fusion_n_heads=4,
        fusion_layers=2,
        enc_layers=1,
        dec_layers=2,
        dim_feedforward=64,
        num_queries=4,
        max_q_l=12,
        max_v_l=CLIPS[1],
        dropout=0.0,
        input_dropout=0.0,
    )


def build_network(gating_type: str, seed: int, gate_bias: float = 1.0) -> QdDetrNetwork:
    """Return the network with random weights.

    The sign of a tanh gate is arbitrary (the layer after it can turn round). Gates that start
    open, at tanh(gate_bias), make positive mean "audio is added" in the trained network.
    """
    with seeded(seed, torch.device("cpu")):
        network = QdDetrNetwork(architecture(gating_type))
    for module in network.fusion.modules():
        if isinstance(module, GatingFunction):
            for mlp in (module.mlp_mha, module.mlp_ffn):
                last: Any = mlp[2]
                torch.nn.init.constant_(last.bias, gate_bias)
                with torch.no_grad():
                    last.weight.mul_(0.1)
    return network


def features(video: Video) -> tuple[Tensor, Tensor, Tensor]:
    """Return video, audio and words as `QVHighlights` makes them of files of these rows."""
    files = np.split(video.seen, 2, axis=1)
    seen = np.concatenate([unit_rows(rows) for rows in files], 1)
    arrays = (with_time(seen), with_time(unit_rows(video.heard)), unit_rows(video.words))
    clips, audio, words = (torch.from_numpy(np.asarray(a, np.float32)) for a in arrays)
    return clips, audio, words


def to_inputs(videos: Sequence[Video]) -> dict[str, Tensor]:
    """Return the network's arguments for a batch, padded and masked."""
    rows = zip(*(features(video) for video in videos), strict=True)
    inputs: dict[str, Tensor] = {}
    for name, tables in zip(("vid", "aud", "txt"), rows, strict=True):
        inputs[f"src_{name}"] = pad_sequence(list(tables), batch_first=True)
        inputs[f"src_{name}_mask"] = pad_sequence(
            [torch.ones(len(t)) for t in tables], batch_first=True
        )
    return inputs


def to_target(video: Video) -> Target:
    """Return what is right for a video: one moment, and full saliency in its clips."""
    clips = len(video.seen)
    edges = torch.tensor([video.right], dtype=torch.float32) / clips
    saliency = torch.zeros(clips)
    saliency[video.right[0] : video.right[1]] = FULL_SALIENCY
    return Target(to_centres(edges), saliency)


def record(video: Video, qid: int) -> dict[str, Any]:
    """Return the video's record in QVHighlights' layout, with `audio` for its kind."""
    start, end = video.right
    return {
        "qid": qid,
        "query": video.query,
        "duration": int(len(video.seen) * CLIP_SECONDS),
        "vid": f"events_{qid:03d}",
        "relevant_windows": [[int(start * CLIP_SECONDS), int(end * CLIP_SECONDS)]],
        "relevant_clip_ids": list(range(start, end)),
        "saliency_scores": [[4, 4, 4]] * (end - start),
        "audio": video.kind,
    }
