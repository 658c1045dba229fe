"""Every kind of figure at every size on one sheet a size, for a person to look at (`make gallery`).

    python tests/gallery/gallery.py --studies semdim --sizes small large --style paper

Beside the sheets it prints which texts are cut off or lie on each other, as the test does.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from legible import Drawn, watching
from omegaconf import OmegaConf
from PIL import Image, ImageDraw, ImageOps
from stories import SIZES, STUDIES, Size

from interp_lab.errors import InterpLabError
from interp_lab.visualization.base import Style
from interp_lab.visualization.draw import draw_all

ROOT = Path(__file__).parents[2]
# A page of the sheet: columns of equal width.
COLUMNS, CELL, GAP, HEAD = 4, 620, 12, 22


def visualization_of(study: str) -> dict[str, Any]:
    """Return a study's visualization node as a command would resolve it."""
    node = OmegaConf.load(ROOT / f"conf/visualization/{study}.yaml")
    given = {"visualization": node, "analysis": {"knockout": False}}
    found = OmegaConf.to_container(OmegaConf.create(given), resolve=True)
    assert isinstance(found, dict)
    return found["visualization"]


def style_of(study: str, **options: Any) -> Style:
    """Return the study's own style with some options changed."""
    return get_class(visualization_of(study)["_target_"])(**options)


def draw(study: str, size: Size, folder: Path, **options: Any) -> tuple[list[Path], list[Drawn]]:
    """Write a result of this size and draw all its figures.

    Returns:
        The files, and the texts of each figure that matplotlib drew.
    """
    result = STUDIES[study](folder, size)
    style = style_of(study, max_samples=1, workers=0, **options)
    figures = visualization_of(study)["figures"]
    with watching() as drawn:
        paths = draw_all(result, figures, style, folder / "figures")
    return paths, drawn


def sheet(paths: Sequence[Path], title: str) -> Image.Image:
    """Put pictures side by side, each as wide as its column, with its name above."""
    cells = [_cell(path) for path in paths]
    columns: list[list[Image.Image]] = [[] for _ in range(min(COLUMNS, len(cells)))]
    for cell in cells:
        min(columns, key=lambda column: sum(c.height + GAP for c in column)).append(cell)
    height = max(sum(c.height + GAP for c in column) for column in columns) + HEAD + GAP
    page = Image.new("RGB", (len(columns) * (CELL + GAP) + GAP, height), "#777777")
    ImageDraw.Draw(page).text((GAP, 4), title, fill="white")
    for place, column in enumerate(columns):
        y = HEAD
        for cell in column:
            page.paste(cell, (GAP + place * (CELL + GAP), y))
            y += cell.height + GAP
    return page


def _cell(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    share = CELL / picture.width
    picture = picture.resize((CELL, max(1, math.floor(picture.height * share))), Image.LANCZOS)
    picture = ImageOps.expand(picture, (0, 16, 0, 0), "#444444")
    ImageDraw.Draw(picture).text((4, 2), path.stem.encode("ascii", "replace").decode(), "white")
    return picture


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--style", default="screen")
    parser.add_argument("--columns", type=int, default=None, choices=(1, 2))
    parser.add_argument("--out", type=Path, default=Path("outputs/gallery"))
    return parser.parse_args()


def _sheets(args: argparse.Namespace) -> Iterator[str]:
    """Make the sheets, and yield what cannot be read."""
    args.out.mkdir(parents=True, exist_ok=True)
    for study in args.studies:
        for size in args.sizes:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    look = {"style": args.style, "columns": args.columns}
                    found = draw(study, SIZES[size], Path(folder), **look)
                except InterpLabError as error:
                    yield f"{study} {size}: {error}"
                    continue
                pictures = [p for p in found[0] if p.suffix == ".png"]
                path = args.out / f"{study}_{size}_{args.style}{args.columns or ''}.png"
                sheet(pictures, f"{study}, {size}, {args.style}").save(path)
                print(path, flush=True)
                yield from (line for drawn in found[1] for line in drawn.faults())


if __name__ == "__main__":
    faults = list(_sheets(_asked()))
    print("\n".join(faults) or "every text can be read")
    sys.exit(bool(faults))
