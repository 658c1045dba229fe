"""What tiny_clip must show, measured against the known truth of scenes it has never seen.

Each measure is given for the trained model and for the same architecture with untrained weights:
raw pixels already tell a part of what lies together, and only the difference was learned.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from transformers import CLIPModel, CLIPProcessor

from interp_lab.zoo.scenes import (
    EXCLUDED,
    SAME_REGION,
    SCENE_SIZE,
    Scene,
    SceneObject,
    caption,
    draw_scenes,
    neighbour_truth,
    object_coverage,
    region_coverage,
)
from interp_lab.zoo.tiny_clip.model import PATCH, to_pixels, to_tokens

HELD_OUT_STREAM = 1  # scenes.draw_scenes((stream, seed)); trainings draw from stream 0


def held_out_scenes(count: int) -> list[Scene]:
    """Scenes that no training has seen, whatever its seed; always the same ones."""
    return draw_scenes(count, (HELD_OUT_STREAM, 0))


@torch.no_grad()
def watch_vision(
    model: CLIPModel, scenes: Sequence[Scene], processor: CLIPProcessor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the vision tower does with the scenes; switches the model to eager attention.

    Returns hidden (n, 8, 8, d_model): last_hidden_state of the patches, before the final layer
    norm; and attention (n, layers, heads, 8, 8): the CLS token's attention to each patch.
    """
    model.set_attn_implementation("eager")
    grid = SCENE_SIZE // PATCH
    hidden, attention = [], []
    for first in range(0, len(scenes), 64):
        images = np.stack([scene.image for scene in scenes[first : first + 64]])
        output = model.vision_model(
            pixel_values=to_pixels(images, processor), output_attentions=True
        )
        hidden.append(output.last_hidden_state[:, 1:].unflatten(1, (grid, grid)))
        rows = torch.stack(output.attentions, 1)[:, :, :, 0, 1:]
        attention.append(rows.unflatten(3, (grid, grid)))
    return torch.cat(hidden).numpy(), torch.cat(attention).numpy()


def neighbour_auc(
    hidden: NDArray[np.float32], scenes: Sequence[Scene], purity: float = 0.75
) -> float:
    """How well cosine similarity tells neighbours in one region from neighbours across a border.

    The area under the ROC curve over all pairs of all scenes together; 0.5 is chance. hidden:
    (n, rows, cols, d_model). purity: see `neighbour_truth`.
    """
    unit = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
    right = (unit[:, :, :-1] * unit[:, :, 1:]).sum(-1)
    down = (unit[:, :-1] * unit[:, 1:]).sum(-1)
    truths = [neighbour_truth(region_coverage(s.labels, PATCH), purity) for s in scenes]
    truth = np.concatenate(
        [
            np.stack([t.horizontal for t in truths]).ravel(),
            np.stack([t.vertical for t in truths]).ravel(),
        ]
    )
    similarity = np.concatenate([right.ravel(), down.ravel()])
    kept = truth != EXCLUDED
    return float(roc_auc_score(truth[kept] == SAME_REGION, similarity[kept]))


def cls_object_factor(attention: NDArray[np.float32], scenes: Sequence[Scene]) -> float:
    """CLS attention on objects, as a multiple of the objects' share of the image; 1 is chance.

    The best head is chosen on the first half of the scenes and measured on the second. Attention
    is normalised over the patches, so what CLS gives to itself does not count.
    """
    coverage = np.stack([object_coverage(scene.labels, PATCH) for scene in scenes])
    share = attention / attention.sum((3, 4), keepdims=True)
    mass = (share * coverage[:, None, None]).sum((3, 4))
    half = len(scenes) // 2
    layer, head = np.unravel_index(mass[:half].mean(0).argmax(), mass.shape[1:])
    return float(mass[half:, layer, head].mean() / coverage[half:].mean())


@torch.no_grad()
def matching_accuracy(
    model: CLIPModel, scenes: Sequence[Scene], processor: CLIPProcessor
) -> dict[str, float]:
    """How often the right caption wins.

    "caption_of_64": among 64 scenes' captions (chance 1/64). "colour_swap": against the same
    caption with the colours of its first two objects exchanged (chance 1/2).
    """
    pixels = to_pixels(np.stack([scene.image for scene in scenes]), processor)
    right = [caption(scene.objects) for scene in scenes]
    wrong = [caption(_swap_colours(scene.objects)) for scene in scenes]
    output = model(pixel_values=pixels, **to_tokens(right, processor))
    image, text = output.image_embeds, output.text_embeds
    pooled = model.text_model(**to_tokens(wrong, processor)).pooler_output
    swapped = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1)
    found = [
        (a @ b.T).argmax(1) == torch.arange(len(a))
        for a, b in zip(image.split(64), text.split(64), strict=True)
    ]
    bound = (image * text).sum(1) > (image * swapped).sum(1)
    return {
        "caption_of_64": torch.cat(found).float().mean().item(),
        "colour_swap": bound.float().mean().item(),
    }


def _swap_colours(objects: Sequence[SceneObject]) -> list[SceneObject]:
    first, second, *rest = objects
    return [replace(first, colour=second.colour), replace(second, colour=first.colour), *rest]


def evaluate(model: CLIPModel, processor: CLIPProcessor, count: int = 512) -> dict[str, float]:
    """All measures on held-out scenes: name -> value."""
    scenes = held_out_scenes(count)
    hidden, attention = watch_vision(model, scenes, processor)
    return {
        "neighbour_auc": neighbour_auc(hidden, scenes),
        "cls_object_factor": cls_object_factor(attention, scenes),
        **matching_accuracy(model, scenes, processor),
    }
