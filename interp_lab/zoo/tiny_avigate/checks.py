"""What tiny_avigate must show, measured on event videos that no training has seen.

The truth is planted in the data: the sound helps in one half of the videos and misleads in the
other. So the gate through which audio enters should be open in the first half and closed in the
second, and forcing it open should cost accuracy in the second half alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from interp_lab.models.qd_detr.criterion import to_edges
from interp_lab.models.qd_detr.network import FOREGROUND, QdDetrNetwork
from interp_lab.zoo.events import Video, draw_videos
from interp_lab.zoo.tiny_avigate.model import to_inputs

HELD_OUT_STREAM = (1, 0)  # trainings draw from stream 0, the shipped videos from stream 2
HELD_OUT_COUNT = 400
IOU_THRESHOLD = 0.5
GATES = {"attention": "mlp_mha", "ffn": "mlp_ffn"}


def held_out_videos(count: int = HELD_OUT_COUNT) -> list[Video]:
    """Return videos that no training has seen, both kinds in turn; always the same ones."""
    return draw_videos(count, HELD_OUT_STREAM)


def hits(outputs: Mapping[str, Tensor], videos: Sequence[Video]) -> NDArray[np.bool_]:
    """Return whether each video's best moment overlaps the right one by an IoU of 0.5 or more."""
    best = outputs["pred_logits"].softmax(-1)[..., FOREGROUND].argmax(1)
    found = to_edges(outputs["pred_spans"][torch.arange(len(best)), best]).clamp(0, 1).numpy()
    right = np.array([np.array(v.right) / len(v.seen) for v in videos])
    low, high = np.maximum(found[:, 0], right[:, 0]), np.minimum(found[:, 1], right[:, 1])
    overlap = np.clip(high - low, 0, None)
    union = np.ptp(found, axis=1) + np.ptp(right, axis=1) - overlap
    return overlap / union >= IOU_THRESHOLD


@torch.no_grad()
def watch(
    network: QdDetrNetwork, videos: Sequence[Video]
) -> tuple[dict[str, Tensor], dict[str, NDArray[np.float32]]]:
    """Return the network's outputs, and the mean size and mean of each video's gates.

    Gates: kind -> (videos, layers, 2), mean |g| and mean g over valid clips and channels.
    """
    inputs = to_inputs(videos)
    gates: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in GATES}
    with ExitStack() as stack:
        for kind, name in GATES.items():
            for layer in network.fusion.fusion_layers:
                mlp = layer.gating_function.get_submodule(name)  # pyright: ignore
                hook = _keep(gates[kind], inputs["src_vid_mask"])
                stack.callback(mlp.register_forward_hook(hook).remove)
        outputs = network(**inputs)
    return outputs, {kind: np.stack(values, 1) for kind, values in gates.items()}


@contextmanager
def forced(network: QdDetrNetwork, value: float) -> Iterator[None]:
    """Give every attention gate a value while the block runs."""
    logit = float(np.arctanh(value))
    with ExitStack() as stack:
        for layer in network.fusion.fusion_layers:
            mlp: nn.Module = layer.gating_function.mlp_mha  # pyright: ignore
            hook = mlp.register_forward_hook(lambda *given: torch.full_like(given[2], logit))
            stack.callback(hook.remove)
        yield


@torch.no_grad()
def evaluate(network: QdDetrNetwork, videos: Sequence[Video] | None = None) -> dict[str, float]:
    """Return all measures on held-out videos: name -> value."""
    videos = videos or held_out_videos()
    informative = np.array([v.kind == "informative" for v in videos])
    outputs, gates = watch(network, videos)
    found: dict[str, float] = {}

    def both(name: str, values: NDArray[Any]) -> None:
        found[f"{name}_informative"] = float(values[informative].mean())
        found[f"{name}_misleading"] = float(values[~informative].mean())

    both("r1", hits(outputs, videos))
    last = gates["attention"][:, -1, 0]
    found["gate_auc"] = float(roc_auc_score(informative, last))
    for kind, values in gates.items():
        for layer in range(values.shape[1]):
            both(f"{kind}_gate_{layer}", values[:, layer, 0])
            both(f"{kind}_signed_{layer}", values[:, layer, 1])
    inputs = to_inputs(videos)
    # Open as the last gate is where the sound helps, and shut.
    opened = float(np.clip(gates["attention"][informative, -1, 1].mean(), -0.99, 0.99))
    for name, value in (("open", opened), ("shut", 0.0)):
        with forced(network, value):
            both(f"r1_{name}", hits(network(**inputs), videos))
    return found


def _keep(kept: list[NDArray[np.float32]], mask: Tensor) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        gate = torch.tanh(output)
        weights = mask[..., None] if gate.shape[1] > 1 else torch.ones_like(gate[:, :1, :1])
        total = weights.sum((1, 2)) * gate.shape[2]
        means = [(g * weights).sum((1, 2)) / total for g in (gate.abs(), gate)]
        kept.append(torch.stack(means, 1).numpy())

    return hook
