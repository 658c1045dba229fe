"""CPU time of drawing all figures of a result, in this process: `python benchmarks/figures.py`.

The results are those of the gallery, at medium size; a study's first drawing, which also loads
fonts and modules, is not counted.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("gallery", "visualization")]


def main() -> None:
    """Print one line a study: figures, median CPU seconds of all of them."""
    from gallery import style_of, visualization_of
    from stories import MEDIUM, STUDIES

    from interp_lab.visualization.draw import draw_all

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", nargs="+", default=list(STUDIES))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for study in args.studies:
        with tempfile.TemporaryDirectory() as name:
            result = STUDIES[study](Path(name), MEDIUM)
            style = style_of(study, max_samples=args.samples, workers=0)
            figures = visualization_of(study)["figures"]
            times, paths = [], []
            for _ in range(args.rounds + 1):
                start = time.process_time()
                paths = draw_all(result, figures, style, Path(name) / "figures")
                times.append(time.process_time() - start)
            print(
                f"{study}: {len(paths)} figures, {statistics.median(times[1:]):.1f} s", flush=True
            )


if __name__ == "__main__":
    main()
