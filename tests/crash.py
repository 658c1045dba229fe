"""Thirty random SIGKILLs of workers and commands; the result must be that of a quiet run.

A real study is run again and again until it is complete, by one to three jobs, while a process of
it is killed at a random moment: loading, measuring, writing a part, merging. After each kill no
sample that was finished may be gone, and some parts are cut on purpose; in the end the result
equals an uninterrupted one, dataset by dataset. Rounds follow until all kills are spent; the last
one ends without. Run it by `make test-crash`, or `python tests/crash.py --kills 30 --seed 0`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import psutil
from PIL import Image

from interp_lab.store.parts import list_parts, read_failures
from interp_lab.zoo.scenes import draw_scenes

BROKEN = 2
# After this share of the kills a part is damaged besides.
SHARE_CUT = 0.2
STUDY = (
    *("model=tiny_clip", "dataset=images", "~visualization.figures", "capture.verify=off"),
    *("capture.live_check=false", "batch_size=2", "output.part_size=2", "output.exports=false"),
)
WORKERS = (("device=cpu",), ("device=cpu,cpu",), ("device=cpu,cpu,cpu",))


def write_scenes(folder: Path, count: int) -> None:
    """Write random scenes, some files of them damaged, so that failures are counted too."""
    folder.mkdir()
    for number, scene in enumerate(draw_scenes(count - BROKEN, seed=0)):
        Image.fromarray(scene.image).save(folder / f"scene_{number:04d}.png")
    for number in range(BROKEN):
        (folder / f"broken_{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))


def start(scenes: Path, root: Path, extra: tuple[str, ...]) -> "subprocess.Popen[str]":
    """Start the study; several values of a key make it a sweep."""
    arguments = [*STUDY, f"dataset.path={scenes}", f"output.root={root}", *extra]
    if any("," in e for e in extra):
        arguments += ["--multirun", f"hydra.sweep.dir={root}/sweep", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, "-m", "interp_lab", *arguments]
    # A file, not a pipe: workers may outlive their command and would keep a pipe open.
    root.mkdir(exist_ok=True)
    with open(root / "said.txt", "w") as said:
        return subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)


# Parts that were damaged on purpose: their samples are to be measured again.
cut: set[Path] = set()


def cut_a_part(root: Path, rng: random.Random) -> None:
    """Cut a part of the round in half, as a failing disk would."""
    parts = [p for run in root.glob("clip_similarity/*") for p in list_parts(run / "parts")]
    if not parts:
        return
    path = rng.choice(parts)
    cut.add(path)
    try:
        os.truncate(path, path.stat().st_size // 2)
    except FileNotFoundError:  # a worker that is still alive has merged in between
        return


def finished(root: Path) -> Counter[str]:
    """Return how often each sample is held by parts and result, measured or failed."""
    held: Counter[str] = Counter()
    try:
        for run in root.glob("clip_similarity/*"):
            for path in [*list_parts(run / "parts"), *run.glob("results.h5")]:
                if path in cut:
                    continue
                with h5py.File(path, "r") as file:
                    held.update(file["samples/sample"].asstr()[...])
                    held.update(f.sample_id for f in read_failures(file))
    except FileNotFoundError:  # a worker that is still alive has merged in between
        return finished(root)
    return held


def count_parts(root: Path) -> int:
    """Return how many parts there are at this moment."""
    try:
        return sum(len(list_parts(run / "parts")) for run in root.glob("clip_similarity/*"))
    except FileNotFoundError:
        return 0


def kill_someone(process: "subprocess.Popen[str]", root: Path, rng: random.Random) -> str:
    """Wait for a random moment and kill the command or one of its workers; return which."""
    until = rng.choice(("start", "part", "part", "part", "late"))
    before = sum(finished(root).values())
    wanted = {"start": 0, "part": before + rng.randint(1, 60), "late": 190}[until]
    deadline = time.monotonic() + (rng.uniform(0, 12) if until == "start" else 120)
    while process.poll() is None and time.monotonic() < deadline:
        if until != "start" and 2 * count_parts(root) >= wanted:
            break
        time.sleep(0.004)
    time.sleep(rng.uniform(0, 0.05))
    try:
        workers = [p for p in psutil.Process(process.pid).children() if _works(p)]
        victim = rng.choice([*workers, psutil.Process(process.pid)])
        own = victim.pid == process.pid
        os.kill(victim.pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return ""
    process.wait()
    return f"{'command' if own else 'worker'} ({until})"


def _works(process: psutil.Process) -> bool:
    """Tell joblib's workers from its resource tracker."""
    try:
        return "LokyProcess" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def contents(path: Path) -> dict[str, object]:
    """Return every dataset of a result, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def check_complete(root: Path, reference: dict[str, object], count: int) -> None:
    """Compare a round's result with the uninterrupted one, and its samples with the data set."""
    (path,) = root.glob("clip_similarity/*/results.h5")
    assert contents(path) == reference, f"{path} differs from the uninterrupted result"
    held = finished(root)
    assert len(held) == count and set(held.values()) == {1}, "a sample is lost or stands twice"
    assert not list((path.parent / "parts").rglob("*.part.h5")) and not list(
        path.parent.rglob(".*.tmp")
    )


def one_round(
    number: int, scenes: Path, root: Path, left: int, rng: random.Random
) -> tuple[list[str], int]:
    """Run the study to its end, killing up to `left` times; return the kills and double work."""
    kills: list[str] = []
    doubled = 0
    while True:
        before = finished(root)
        extra = rng.choice(WORKERS)
        process = start(scenes, root, extra)
        killed = kill_someone(process, root, rng) if len(kills) < left else ""
        process.wait()
        held = finished(root)
        lost = set(before) - set(held)
        assert not lost, f"lost after {killed}: {sorted(lost)}"
        if killed:
            kills.append(killed)
            print(f"round {number}: {extra[0]:<19} killed the {killed}, {len(held)} finished")
            if rng.random() < SHARE_CUT:
                cut_a_part(root, rng)
            continue
        if process.returncode == 3 and list(root.glob("clip_similarity/*/results.h5")):
            doubled += sum(n - 1 for n in before.values())
            return kills, doubled
        # A worker outlives its command for the batch at hand; whoever comes too early is told.
        said = (root / "said.txt").read_text().strip().splitlines()[-1]
        print(f"round {number}: exit {process.returncode}: {said[:150]}")


def main() -> None:
    """Kill, go on, compare; an assertion that fails ends with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="interp_lab-crash-"))
    began = time.monotonic()
    write_scenes(folder / "scenes", options.samples)
    quiet = start(folder / "scenes", folder / "quiet", ("device=cpu",))
    assert quiet.wait() == 3, (folder / "quiet" / "said.txt").read_text()
    (path,) = (folder / "quiet").glob("clip_similarity/*/results.h5")
    reference = contents(path)
    kills: list[str] = []
    doubled = number = 0
    while len(kills) < options.kills:
        number += 1
        root = folder / f"round{number}"
        more, twice = one_round(number, folder / "scenes", root, options.kills - len(kills), rng)
        kills += more
        doubled += twice
        check_complete(root, reference, options.samples)
        print(f"round {number}: equal to the uninterrupted run after {len(more)} kills", flush=True)
    said = json.dumps(Counter(kills), sort_keys=True)
    print(f"{len(kills)} kills in {number} rounds: {said}")
    print(
        f"every result equal, dataset by dataset ({len(reference)} datasets), {options.samples} "
        f"samples each once, {doubled} measured twice on the way, {len(cut)} parts cut, "
        f"{time.monotonic() - began:.0f} s"
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
