"""Synthetic scenes whose truth is known pixel by pixel.

A figure about a model can only be checked where the answer is known beforehand. Here two or three
coloured shapes lie on a textured ground; every pixel has a region label, every scene a caption.
From the labels follow the truths on a patch grid: how much of each patch a region covers, and
whether two neighbouring patches lie in one region or on two sides of an object's border.

Brightness varies inside every region (stripes, checks, waves, slopes, pixel noise), so that raw
pixel values are a poor guide to regions and a model has to learn what belongs together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCENE_SIZE = 64
GROUND = 0
SAME_REGION, ACROSS_BORDER, EXCLUDED = 1, 0, -1

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 45, 45),
    "green": (45, 180, 65),
    "blue": (55, 85, 225),
    "yellow": (225, 205, 50),
    "purple": (150, 55, 190),
    "cyan": (60, 200, 210),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Radii in pixels; the gap between the two ranges makes the words "small" and "large" learnable.
SIZES: dict[str, tuple[float, float]] = {"small": (8.0, 10.5), "large": (13.0, 17.0)}

TEXTURES = ("plain", "stripes", "checks", "slope", "waves")
TEXTURE_CONTRAST = (0.15, 0.4)
PIXEL_NOISE = 30.0

DEMO_COUNT = 4
DEMO_SEED = (2, 0)  # its own stream, apart from those that models train and are tested on

_ROWS, _COLS = np.mgrid[0:SCENE_SIZE, 0:SCENE_SIZE].astype(np.float32)


@dataclass(frozen=True)
class SceneObject:
    """One shape: its words, and its centre (x, y) and radius in pixels."""

    size: str
    colour: str
    shape: str
    centre: tuple[float, float]
    radius: float

    @property
    def phrase(self) -> str:
        """The object in words, e.g. "a small red circle"."""
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """An image with its truth.

    image: (64, 64, 3) uint8, RGB. labels: (64, 64) uint8, 0 on the ground and i + 1 on objects[i].
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class NeighbourTruth:
    """What each pair of neighbouring patches is: SAME_REGION, ACROSS_BORDER or EXCLUDED (int8).

    horizontal: (rows, cols - 1), each patch with its right neighbour.
    vertical: (rows - 1, cols), each patch with the one below.
    """

    horizontal: NDArray[np.int8]
    vertical: NDArray[np.int8]


def shape_mask(shape: str, centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    """The pixels of a shape, (64, 64); all four shapes fit in the square of the given radius."""
    dx, dy = _COLS - centre[0], _ROWS - centre[1]
    if shape == "circle":
        return dx**2 + dy**2 <= radius**2
    if shape == "square":
        return np.maximum(abs(dx), abs(dy)) <= 0.88 * radius
    if shape == "triangle":
        return (abs(dy) <= 0.95 * radius) & (abs(dx) <= (dy + radius) * 0.5)
    if shape == "cross":
        return (np.minimum(abs(dx), abs(dy)) <= 0.36 * radius) & (
            np.maximum(abs(dx), abs(dy)) <= radius
        )
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


def texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random brightness pattern, (64, 64) in [-1, 1]."""
    kind = rng.choice(TEXTURES)
    if kind == "plain":
        return np.zeros_like(_ROWS)
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    along = _COLS * np.cos(angle) + _ROWS * np.sin(angle)
    if kind == "slope":
        return (along - along.mean()) / np.ptp(along) * 2
    rate = 2 * np.pi / rng.uniform(5, 14)
    if kind == "stripes":
        return np.sign(np.sin(along * rate + phase))
    across = _ROWS * np.cos(angle) - _COLS * np.sin(angle)
    if kind == "checks":
        return np.sign(np.sin(along * rate + phase) * np.sin(across * rate))
    return (np.sin(along * rate / 2 + phase) + np.sin(across * rate / 3)) / 2


def _paint(rng: np.random.Generator, colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (64, 64, 3) sheet of the colour under a random texture, before pixel noise."""
    shade = 1 + rng.uniform(*TEXTURE_CONTRAST) * texture(rng)
    return shade[..., None] * colour


def _place_objects(rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """Two or three objects that do not touch, each colour and shape at most once in a scene."""
    while True:  # ends: two small objects nearly always find room
        n = int(rng.integers(2, 4))
        sizes = rng.choice(list(SIZES), n)
        colours = rng.permutation(list(COLOURS))[:n]
        shapes = rng.permutation(SHAPES)[:n]
        radii = np.array([rng.uniform(*SIZES[size]) for size in sizes])
        for _ in range(20):
            centres = rng.uniform(radii[:, None], SCENE_SIZE - 1 - radii[:, None], (n, 2))
            if _apart(centres, radii):
                return tuple(
                    SceneObject(
                        size=str(sizes[i]),
                        colour=str(colours[i]),
                        shape=str(shapes[i]),
                        centre=(float(centres[i, 0]), float(centres[i, 1])),
                        radius=float(radii[i]),
                    )
                    for i in range(n)
                )


def _apart(centres: NDArray[np.float64], radii: NDArray[np.float64]) -> bool:
    """Whether the squares around the objects, (n, 2) and (n,), leave a pixel between them."""
    distance = abs(centres[:, None] - centres[None]).max(-1)
    room = distance > radii[:, None] + radii[None] + 1
    return bool(np.all(room | np.eye(len(radii), dtype=bool)))


def draw_scene(rng: np.random.Generator) -> Scene:
    """One random scene: textured ground of weak colour, two or three textured, coloured objects."""
    objects = _place_objects(rng)
    # The ground's tint is weak so that hue names objects; its brightness covers their whole range.
    image = _paint(rng, rng.uniform(60, 190) + rng.uniform(-20, 20, 3))
    labels = np.full((SCENE_SIZE, SCENE_SIZE), GROUND, np.uint8)
    for index, thing in enumerate(objects, start=1):
        mask = shape_mask(thing.shape, thing.centre, thing.radius)
        colour = np.array(COLOURS[thing.colour]) * rng.uniform(0.75, 1.1) + rng.normal(0, 8, 3)
        image[mask] = _paint(rng, colour)[mask]
        labels[mask] = index
    image += rng.normal(0, PIXEL_NOISE, image.shape)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), labels, objects)


def draw_scenes(count: int, seed: int | Sequence[int]) -> list[Scene]:
    """`count` scenes of one random stream; the same seed gives the same scenes."""
    rng = np.random.default_rng(seed)
    return [draw_scene(rng) for _ in range(count)]


def caption(objects: Sequence[SceneObject], rng: np.random.Generator | None = None) -> str:
    """The objects in words, e.g. "a small red circle and a large blue cross".

    In the order given, or in a random one where a generator is given.
    """
    order = range(len(objects)) if rng is None else rng.permutation(len(objects))
    return " and ".join(objects[index].phrase for index in order)


def region_coverage(labels: NDArray[np.uint8], patch: int) -> NDArray[np.float64]:
    """Share of each patch that each region covers.

    labels: (height, width) with region numbers from 0; both sides must be multiples of `patch`
    (pixels). Returns (regions, rows, cols), which sums to 1 over regions.
    """
    height, width = labels.shape
    if height % patch or width % patch:
        raise ValueError(f"a {height}x{width} label map does not divide into patches of {patch}")
    masks = labels[None] == np.arange(labels.max() + 1)[:, None, None]
    return masks.reshape(-1, height // patch, patch, width // patch, patch).mean((2, 4))


def object_coverage(labels: NDArray[np.uint8], patch: int) -> NDArray[np.float64]:
    """Share of each patch that any object covers, (rows, cols)."""
    return 1 - region_coverage(labels, patch)[GROUND]


def neighbour_truth(coverage: NDArray[np.float64], purity: float = 0.75) -> NeighbourTruth:
    """Which neighbouring patches belong together.

    A patch belongs to the region that covers at least `purity` (above 0.5, at most 1) of it. A pair
    is SAME_REGION where both belong to one region, ACROSS_BORDER where they belong to two, and
    EXCLUDED where either patch is mixed and belongs to none. coverage: (regions, rows, cols).
    """
    if not 0.5 < purity <= 1:
        raise ValueError(f"purity must lie above 0.5 and at most at 1, not {purity}")
    owner = np.where(coverage.max(0) >= purity, coverage.argmax(0), -1)
    return NeighbourTruth(
        horizontal=_pair_truth(owner[:, :-1], owner[:, 1:]),
        vertical=_pair_truth(owner[:-1], owner[1:]),
    )


def _pair_truth(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int8]:
    truth = np.where(first == second, SAME_REGION, ACROSS_BORDER)
    return np.where((first < 0) | (second < 0), EXCLUDED, truth).astype(np.int8)


def demo_scenes() -> list[Scene]:
    """The scenes shipped as photos/scenes/scene_<i>.png; here with labels and objects."""
    return draw_scenes(DEMO_COUNT, DEMO_SEED)


def main() -> None:
    """Writes the demo scenes as PNG files again."""
    from PIL import Image  # only here: everything else needs numpy alone

    folder = Path(__file__).parent / "photos" / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(demo_scenes()):
        Image.fromarray(scene.image).save(folder / f"scene_{index}.png", optimize=True)


if __name__ == "__main__":
    main()
