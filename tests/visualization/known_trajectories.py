"""Results of written answers, written by the real store, with numbers that a test can foresee."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from interp_lab.fields import (
    Category,
    Document,
    Field,
    HeadIndex,
    HeadScores,
    LayerIndex,
    Picture,
    Point,
    StepCounts,
    StepCurve,
    StepPattern,
)
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import Results, open_results
from interp_lab.tokens import Token, TokenMap

N_LAYERS = 6
PHRASE = "Based on the following requirements"
N_HEADS = 4
PARTS = ("image", "prompt", "generated")
FIELDS: list[Field] = [
    StepPattern("rows", "attention of the newest token", definition="trajectory.rows/1"),
    LayerIndex("layers", "layers"),
    *(Document(name, name) for name in ("heads", "tokens", "output")),
    *(Category(name, name) for name in ("ended", "answer", "predicted")),
    *(Picture(f"image_{i}", "picture", ragged=True) for i in range(3)),
    *(Point(f"{kind}_point", f"{kind} point") for kind in ("predicted", "reference")),
    *(
        StepCurve(f"share_{part}", f"share on {part}", definition="trajectory.share/1")
        for part in PARTS
    ),
    HeadScores("moving_peak", "moving peak", definition="trajectory.peak/1", ragged=True),
    HeadIndex("peak_head", "head of the highest", ragged=True),
    StepCurve("peak_share", "attention on the peak", definition="trajectory.peak_share/1"),
    StepCurve("peak_cell", "the peak"),
    *(StepCurve(f"centre_{axis}", f"centre of mass, {axis}") for axis in "xy"),
    *(
        StepCurve(
            f"distance_{kind}", f"distance to the {kind} point", definition="trajectory.distance/1"
        )
        for kind in ("predicted", "reference")
    ),
]


@dataclass(frozen=True)
class Story:
    """A sample to write.

    Args:
        name: its id.
        words: generated tokens.
        sides: (height, width) of each picture.
        grids: (rows, cols) of each image's cells.
        ask: text of the prompt behind the phrase, in tokens that begin with a space.
        layers, heads: what is kept; heads as the document says it.
        predicted, reference: (image, x, y), or None.
        keep_pictures: whether pictures are stored.
    """

    name: str
    words: tuple[str, ...]
    sides: tuple[tuple[int, int], ...] = ((224, 224),)
    grids: tuple[tuple[int, int], ...] = ((6, 6),)
    ask: str = " name each step of the path , then give the point where it ends ."
    layers: tuple[int, ...] = (2, 4)
    heads: str | list[int] = "mean"
    predicted: tuple[int, float, float] | None = (0, 0.7, 0.3)
    reference: tuple[int, float, float] | None = (0, 0.75, 0.25)
    keep_pictures: bool = True
    intro: str = "You see a map . " + PHRASE


def token_map(story: Story) -> TokenMap:
    """Special tokens, images, introduction, question, special tokens, and the answer."""
    text, tokens = "", []

    def add(piece: str, role: str = "user") -> None:
        nonlocal text
        tokens.append(Token(piece, role, chars=(len(text), len(text) + len(piece))))
        text += piece

    add("<|im_start|>", "special")
    for piece in ("user", "\n"):
        add(piece)
    for image, (rows, cols) in enumerate(story.grids):
        add("<|vision_start|>", "special")
        tokens.extend(
            Token("<image>", "image", "image", image=image, cell=(r, c))
            for r in range(rows)
            for c in range(cols)
        )
        add("<|vision_end|>", "special")
    for piece in pieces(story.intro) + pieces(story.ask):
        add(piece)
    add("<|im_end|>", "special")
    add("\n")
    add("<|im_start|>", "special")
    for piece in ("assistant", "\n"):
        add(piece)
    tokens.extend(Token(word, "generated") for word in story.words)
    return TokenMap(tuple(tokens), story.grids, text)


def pieces(text: str) -> list[str]:
    """Words with the space before them."""
    words = text.split(" ")
    return [w for w in [words[0], *(f" {word}" for word in words[1:])] if w]


def picture_of(side: tuple[int, int], seed: int) -> np.ndarray:
    """A map of streets on a pale ground."""
    rng = np.random.default_rng(seed)
    height, width = side
    picture = np.full((height, width, 3), (238, 234, 224), np.uint8)
    for _ in range(7):
        thick = max(1, min(side) // 40)
        y, x = int(rng.integers(height)), int(rng.integers(width))
        picture[y : y + thick] = (255, 255, 255)
        picture[:, x : x + thick] = (250, 214, 120)
        picture[y : y + height // 6, x : x + width // 6] = rng.integers(150, 230, 3)
    return picture


def rows_of(story: Story, tokens: TokenMap, n_heads: int) -> np.ndarray:
    """(layer, head, step, key): a peak that moves over the cells, the first token, near text."""
    n_steps = len(story.words)
    n = len(tokens) - n_steps
    rng = np.random.default_rng(zlib.crc32(story.name.encode()))
    rows = np.zeros((len(story.layers), n_heads, n_steps, n + n_steps), np.float32)
    cells = [(i, t) for i, t in enumerate(tokens) if t.image is not None]
    for step in range(n_steps):
        logits = rng.normal(0, 1.1, (len(story.layers), n_heads, n + step))
        logits[..., 0] += 4
        logits[..., -8:] += np.linspace(0, 2, 8)
        progress = (step + 1) / n_steps
        for i, token in cells:
            rows_n, cols_n = story.grids[token.image or 0]
            assert token.cell is not None
            y, x = (token.cell[0] + 0.5) / rows_n, (token.cell[1] + 0.5) / cols_n
            near = (y - (0.8 - 0.5 * progress)) ** 2 + (x - (0.15 + 0.55 * progress)) ** 2
            logits[..., i] += 3.4 * np.exp(-near / 0.02) - 0.5
        weights = np.exp(logits)
        rows[..., step, : n + step] = weights / weights.sum(-1, keepdims=True)
    return rows


def values_of(story: Story) -> dict[str, Any]:
    """The fields of one sample."""
    tokens = token_map(story)
    n_heads = (
        {"mean": 1, "all": 4}.get(story.heads, len(story.heads))
        if isinstance(story.heads, str)
        else len(story.heads)
    )
    n_steps = len(story.words)
    is_done = bool(story.words) and story.words[-1] == "<|im_end|>"
    values: dict[str, Any] = {
        "rows": rows_of(story, tokens, n_heads),
        "layers": story.layers,
        "heads": json.dumps(story.heads),
        "tokens": tokens.to_json(),
        "ended": "end_token" if is_done else "max_new_tokens",
        "answer": "(750,250)",
        "predicted": "(700,300)",
        "output": "".join(story.words),
    }
    if story.keep_pictures:
        values |= {f"image_{i}": picture_of(s, i) for i, s in enumerate(story.sides)}
    rng = np.random.default_rng(3)
    shape = (N_LAYERS, n_steps)
    image = 0.15 + 0.5 * np.exp(-((np.arange(N_LAYERS)[:, None] - 3) ** 2) / 3) * np.ones(shape)
    image = (image + rng.normal(0, 0.02, shape)) * bool(story.grids)
    generated = (1 - image) * np.linspace(0, 0.6, n_steps)[None] if n_steps else image
    shares = (image, 1 - image - generated, generated)
    values |= {f"share_{part}": share for part, share in zip(PARTS, shares, strict=True)}
    if story.grids:
        values |= peaks_of(story)
        kept = (len(story.layers), n_steps)
        values |= {f"centre_{axis}": rng.uniform(0.3, 0.7, kept) for axis in "xy"}
        for kind in ("predicted", "reference"):
            if getattr(story, kind) is not None:
                values[f"{kind}_point"] = getattr(story, kind)
                values[f"distance_{kind}"] = np.linspace(0.5, 0.1, n_steps) * np.ones(
                    kept
                ) + rng.normal(0, 0.02, kept)
    return values


def peaks_of(story: Story) -> dict[str, Any]:
    """Head 1 of layer 2 looks at one cell after the other at every third token."""
    n_steps, n_cells = len(story.words), sum(rows * cols for rows, cols in story.grids)
    scores = np.full((N_LAYERS, N_HEADS), 0.1)
    scores[min(2, N_LAYERS - 1), 1] = 0.8
    shares = np.full((N_LAYERS, n_steps), 0.05)
    shares[:, ::3] = 0.8
    cells = np.broadcast_to(np.arange(n_steps) // 3 % n_cells, shares.shape)
    best = scores.argmax(axis=1)
    return {"moving_peak": scores, "peak_head": best, "peak_share": shares, "peak_cell": cells}


def aggregates_of(stories: Sequence[Story], layers: int = N_LAYERS) -> list[tuple[Field, Any]]:
    """Means over the samples that have a step, by hand."""
    held = [values_of(story) for story in stories]
    longest = max(len(story.words) for story in stories)
    counts = np.array([sum(len(s.words) > t for s in stories) for t in range(longest)])
    found: list[tuple[Field, Any]] = [(StepCounts("n_samples_at_step", "samples"), counts)]
    names = [f"share_{part}" for part in PARTS] + ["distance_predicted", "distance_reference"]
    for name in names:
        having = [v[name] for v in held if name in v]
        if not having:
            continue
        total = np.zeros((len(having[0]), longest))
        number = np.zeros(longest)
        for one in having:
            total[:, : one.shape[1]] += one
            number[: one.shape[1]] += 1
        found.append((StepCurve(f"mean_{name}", f"mean {name}"), total / np.maximum(number, 1)))
    return found


def written(
    folder: Path, stories: Sequence[Story], *, notes: Sequence[str] = (), aggregates: bool = True
) -> Results:
    """Write a result into `folder` and open it."""
    writer = PartWriter(folder / "parts", FIELDS, size=10_000, seconds=1e9)
    for index, story in enumerate(stories):
        writer.add(index, story.name, values_of(story))
    writer.flush()
    found = aggregates_of(stories) if aggregates else []
    final = folder / "results.h5"
    attributes = {
        "task_name": "trajectory",
        "model": "tiny_qwen_vl",
        "dataset": "paths",
        "notes": json.dumps(list(notes)),
    }
    ids = [story.name for story in stories]
    merge(list_parts(folder / "parts"), ids, final, attributes, lambda results: found)
    return open_results(final)


WORDS = (
    "<think>",
    " The",
    " path",
    " goes",
    " right",
    ",",
    " right",
    ",",
    " up",
    " and",
    " up",
    ".",
    "\n",
    " 다음",
    " 점",
    "は",
    "右上",
    " 😀",
    "</think>",
    "\n",
    "<answer>",
    "<|object_ref_start|>",
    "the",
    " 13",
    "th",
    " point",
    "<|object_ref_end|>",
    "<|box_start|>",
    "(",
    "700",
    ",",
    "300",
    "),(",
    "701",
    ",",
    "301",
    ")",
    "<|box_end|>",
    "</answer>",
    "<|im_end|>",
)
PATH = Story("answer_1.png", WORDS)


def decoded(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a decoder says of a video, and its frames (n, height, width, 3)."""
    return imageio.immeta(path, plugin="FFMPEG"), imageio.imread(path, plugin="FFMPEG")
