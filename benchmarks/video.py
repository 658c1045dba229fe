"""How fast a film of attention is drawn and encoded, and whether its memory grows with its length.

    python benchmarks/video.py --frames 100 2000 --width 1280

A result with random attention is written first: 24 x 24 cells on a picture of 672 x 672 in blocks
of colour, 120 prompt tokens of text, then the frames' tokens. Each film is made in a process of its
own. Time: drawing alone, and drawing with encoding, in wall seconds and in CPU seconds of both
processes (the machine may be shared). Memory: the peak of the process that draws, the encoder's own
not counted.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.fields import Document, LayerIndex, Picture, StepPattern
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import open_results
from interp_lab.tokens import Token, TokenMap

SIDE, CELLS, TEXT, LAYER = 672, 24, 120, 20
WORDS = (" the", " path", " goes", " up", ",", " right", ".", "\n", " 다음", " 右")


def write_result(folder: Path, n_frames: int) -> None:
    """Write a result of one sample with `n_frames` generated tokens."""
    rng = np.random.default_rng(0)
    cells = [
        Token("<image>", "image", "image", image=0, cell=(r, c))
        for r in range(CELLS)
        for c in range(CELLS)
    ]
    text = [" word"] * TEXT
    ends = np.cumsum([len(t) for t in text]).tolist()
    asked = [Token(t, "user", chars=(end - len(t), end)) for t, end in zip(text, ends, strict=True)]
    written = [Token(WORDS[i % len(WORDS)], "generated") for i in range(n_frames)]
    tokens = TokenMap((*cells, *asked, *written), ((CELLS, CELLS),), "".join(text))
    n_prompt = len(cells) + len(asked)
    rows = np.zeros((1, 1, n_frames, n_prompt + n_frames), dtype=np.float32)
    for step in range(n_frames):
        weights = rng.exponential(size=n_prompt + step)
        rows[0, 0, step, : n_prompt + step] = weights / weights.sum()
    fields = [
        StepPattern("rows", "rows"),
        LayerIndex("layers", "layers"),
        Document("heads", "heads"),
        Document("tokens", "tokens"),
        Picture("image_0", "picture", ragged=True),
    ]
    writer = PartWriter(folder / "parts", fields)
    blocks = rng.integers(90, 255, (14, 14, 3), dtype=np.uint8)
    picture = blocks.repeat(SIDE // 14, axis=0).repeat(SIDE // 14, axis=1)
    writer.add(
        0,
        "a",
        {
            "rows": rows,
            "layers": [LAYER],
            "heads": "mean",
            "tokens": tokens.to_json(),
            "image_0": picture,
        },
    )
    writer.flush()
    merge(list_parts(folder / "parts"), ["a"], folder / "results.h5", {}, lambda results: [])


def measure(folder: Path, width: int, work: str) -> dict[str, Any]:
    """Make the film of a result and return what it cost."""
    from interp_lab.studies.trajectory.figures.answers import TrajectoryStyle
    from interp_lab.studies.trajectory.figures.film import attention_video
    from interp_lab.visualization.film import save_film

    style = TrajectoryStyle(width=width, start_phrase=None, workers=0)
    with open_results(folder) as results:
        start, cpu = time.perf_counter(), time.process_time()
        film = attention_video(results, style, "a", LAYER)
        if work == "draw":
            for _ in film.frames():
                pass
            size = 0
        else:
            size = save_film(film, folder / "film.mp4", "mp4").stat().st_size
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    encoder = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu += encoder.ru_utime + encoder.ru_stime
    return {"frames": film.n_frames, "wall": wall, "cpu": cpu, "peak": peak, "bytes": size}


def main() -> None:
    """Print a table: one line a film."""
    parser = argparse.ArgumentParser(description="How fast a film is drawn and encoded.")
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", default="draw", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.width, args.work)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, width {args.width}\n")
    print("| frames | work | frames/s (wall) | frames/s (CPU) | peak MiB | file MiB |")
    print("|---|---|---|---|---|---|")
    for n_frames in args.frames:
        with tempfile.TemporaryDirectory() as folder:
            write_result(Path(folder), n_frames)
            for work in ("draw", "draw and encode"):
                command = [
                    sys.executable,
                    __file__,
                    "--measure",
                    folder,
                    "--work",
                    work,
                    "--width",
                    str(args.width),
                ]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                got = json.loads(done.stdout)
                print(
                    f"| {n_frames} | {work} | {n_frames / got['wall']:.0f} | "
                    f"{n_frames / got['cpu']:.0f} | {got['peak']:.0f} | "
                    f"{got['bytes'] / 2**20:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
