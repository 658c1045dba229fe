"""Small QD-DETRs, inputs for them, and checkpoints of the origin's layout."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_lab.models.qd_detr.network import Architecture, QdDetrNetwork

SMALL = Architecture(
    t_feat_dim=12,
    v_feat_dim=10,
    a_feat_dim=8,
    gating_type="global",
    hidden_dim=16,
    nheads=4,
    fusion_n_heads=2,
    fusion_layers=3,
    dim_feedforward=24,
    num_queries=5,
)


def network(gating_type: str = "global", masked: bool = True, **values: Any) -> QdDetrNetwork:
    """A network with every weight random: norms, biases and activations too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = QdDetrNetwork(replace(SMALL, gating_type=gating_type, **values), masked)
        for parameter in made.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def batch(lengths: list[tuple[int, int]], clips: int, words: int) -> dict[str, Tensor]:
    """Inputs for rows of so many (clips, words); padding holds numbers that must not count."""
    generator = torch.Generator().manual_seed(1)

    def features(length: int, width: int) -> Tensor:
        return torch.randn(len(lengths), length, width, generator=generator)

    inputs = {
        "src_vid": features(clips, SMALL.v_feat_dim),
        "src_aud": features(clips, SMALL.a_feat_dim),
        "src_txt": features(words, SMALL.t_feat_dim),
    }
    masks = {"src_vid": 0, "src_aud": 0, "src_txt": 1}
    for name, which in masks.items():
        mask = torch.zeros(inputs[name].shape[:2])
        for row, pair in enumerate(lengths):
            mask[row, : pair[which]] = 1
        inputs[name] = torch.where(mask[..., None] > 0, inputs[name], torch.tensor(9.0))
        inputs[f"{name}_mask"] = mask
    return inputs


def one_row(inputs: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """A row of a batch without its padding."""
    alone: dict[str, Tensor] = {}
    for name in ("src_vid", "src_aud", "src_txt"):
        length = int(inputs[f"{name}_mask"][row].sum())
        alone[name] = inputs[name][row : row + 1, :length]
        alone[f"{name}_mask"] = torch.ones(1, length)
    return alone


def checkpoint(path: Path, made: QdDetrNetwork, **options: Any) -> Path:
    """Write a training checkpoint as the origin does: with an optimiser, from several devices."""
    optimizer = torch.optim.AdamW(made.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 400)
    values = asdict(made.architecture)
    # The origin's options do not know the activation; the video's width may lack the time columns.
    del values["activation"], values["pre_norm"]
    values["v_feat_dim"] -= 2
    opt = argparse.Namespace(**{**values, "device": torch.device("cpu"), "lr": 1e-4, **options})
    for name in [k for k, v in options.items() if v is None]:
        delattr(opt, name)
    torch.save(
        {
            "model": {f"module.{k}": v for k, v in made.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(),
            "epoch": 12,
            "opt": opt,
        },
        path,
    )
    return path
