"""What fingerprints cost: 10,000 pictures, first and going on, and a folder with 15 GB of weights.

The weights are a sparse file: reading a hole costs no disk, so what is measured is the work of the
processor; the bytes that a disk would have to give are printed beside it.

    PYTHONPATH=. OMP_NUM_THREADS=1 python benchmarks/fingerprints.py --pictures 10000 --gigabytes 15
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from interp_lab.datasets.images import ImageFiles
from interp_lab.datasets.prints import SamplePrints, loaded_with_print
from interp_lab.identity.files import BLOCK, STRETCH, Digests, sampled
from interp_lab.identity.weights import checkpoint_identity

TENSOR = 3584 * 18944 * 2  # bytes of the largest matrices of a 7B model in half precision


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall and processor seconds of some work, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def write_pictures(folder: Path, count: int) -> None:
    """Write files of the size of a photograph; the fingerprint does not look into them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(rng.bytes(120_000))


def pictures(folder: Path, count: int) -> None:
    """Print what the fingerprints of pictures cost."""
    write_pictures(folder, count)
    time.sleep(3)  # until the times of the last ones are trusted
    dataset = ImageFiles(str(folder))
    digests = Digests()
    prints = SamplePrints(dataset, digests)
    first = timed(lambda: [prints.of(i) for i in range(count)])
    text = digests.as_json()

    def again() -> list[str]:
        known = Digests()
        known.add(text)
        later = SamplePrints(dataset, known)
        found = [later.of(i) for i in range(count)]
        assert known.read == 0
        return found

    second = timed(again)
    assert first[2] == second[2]
    print(f"| {count} pictures, first | {first[0]:.2f} | {first[1]:.2f} |")
    print(f"| {count} pictures, going on | {second[0]:.2f} | {second[1]:.2f} |")
    print(f"cache: {len(text) / 2**20:.1f} MiB")


def overhead(folder: Path, count: int) -> None:
    """Print what the fingerprint adds to loading real photographs."""
    photo = Path(__file__).parent.parent / "interp_lab" / "zoo" / "photos" / "cat.jpg"
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(photo.read_bytes())
    dataset = ImageFiles(str(folder))
    plain = timed(lambda: [dataset.load(i) for i in range(count)][:0])
    prints = SamplePrints(dataset, Digests())
    both = timed(lambda: [loaded_with_print(dataset, prints, i) for i in range(count)][:0])
    print(f"| loading {count} photographs | {plain[0]:.2f} | {plain[1]:.2f} |")
    print(f"| ... and their fingerprints | {both[0]:.2f} | {both[1]:.2f} |")


def weights(folder: Path, gigabytes: float) -> None:
    """Print what the fingerprint of a folder with one large safetensors file costs."""
    size = int(gigabytes * 1e9)
    header, place = {}, 0
    while place < size:
        end = min(place + TENSOR, size)
        header[f"layers.{len(header)}.weight"] = {
            "dtype": "F16",
            "shape": [(end - place) // 2],
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    (folder / "config.json").write_text("{}")
    first = timed(lambda: checkpoint_identity(str(folder)))
    second = timed(lambda: checkpoint_identity(str(folder)))
    read = (path.stat().st_size / STRETCH) * BLOCK / 2**20
    print(f"| {gigabytes:g} GB of weights, a process's first | {first[0]:.2f} | {first[1]:.2f} |")
    print(f"| again in this process | {second[0]:.4f} | {second[1]:.4f} |")
    print(
        f"read: {read:.0f} MiB in {path.stat().st_size // STRETCH} blocks; "
        f"{os.stat(path).st_blocks * 512 / 2**20:.1f} MiB on disk; {sampled(path)}"
    )


def main() -> None:
    """Measure and print a table of wall and processor seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--gigabytes", type=float, default=15)
    given = parser.parse_args()
    print("| work | wall s | CPU s |\n|---|---|---|")
    for work, size in (
        (pictures, given.pictures),
        (overhead, given.photographs),
        (weights, given.gigabytes),
    ):
        with tempfile.TemporaryDirectory() as folder:
            work(Path(folder), size)


if __name__ == "__main__":
    main()
