"""Three jobs on a real Ray of this machine; `make test-ray` makes the environment it needs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import pytest

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent.parent
STUDY = ["task=scienceqa", "batch_size=1", "visualization.max_samples=0", "device=cpu"]
# Ray counts this machine's cores; three jobs are to run at once on fewer.
LAUNCHER = ["--multirun", "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=3"]
LAUNCHER += ["+hydra.launcher.ray.init.include_dashboard=false"]


def command(folder: Path, *arguments: str) -> Path:
    """Give a command and return the result that it names."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "interp_lab",
            *arguments,
            f"output.root={folder}/outputs",
            f"hydra.sweep.dir={folder}/sweep",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        # Ray starts its workers elsewhere.
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    named = [line for line in done.stdout.splitlines() if line.startswith("results: ")]
    return Path(named[-1].removeprefix("results: "))


def test_three_jobs_on_ray_make_the_result_of_one(tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("no Ray here: make test-ray installs it")
    (tmp_path / "one").mkdir()
    (tmp_path / "three").mkdir()
    one = command(tmp_path / "one", *STUDY)
    three = command(tmp_path / "three", *LAUNCHER, *STUDY, "shard.index=0,1,2", "shard.count=3")
    assert contents(three) == contents(one)
    assert len(list((tmp_path / "three" / "sweep" / ".jobs").rglob("[0-9]*.json"))) == 3
    logs = [p.read_text() for p in sorted((tmp_path / "three" / "sweep").glob("[0-9]/*.log"))]
    # Whoever is first takes what the others have not begun.
    assert all("20 of 60, " in log for log in logs) and len(logs) == 3
    assert any("20 of 60, 20 to do" in log for log in logs)


def contents(path: Path) -> dict[str, object]:
    """Return every dataset of a file, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
