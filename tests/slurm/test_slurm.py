"""A real Slurm on this machine: sbatch, a job that dies hard, a job that is preempted.

`make test-slurm` installs and starts it. Jobs run the tiny model on its boards; the result must be
equal, dataset by dataset, to that of one job without Slurm.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest

pytestmark = pytest.mark.slurm
ONE_NODE = Path(__file__).parent / "one_node.sh"
STUDY = ["task=scienceqa", "batch_size=1", "output.part_size=1", "analysis.knockout=winners"]
STUDY += ["visualization.figures={}", "device=cpu"]
LAUNCHER = ["--multirun", "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null"]
LAUNCHER += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
PATIENCE = 300.0


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a cluster of one node that lives for these tests."""
    if subprocess.run(["which", "slurmctld", "munged", "mariadbd"], capture_output=True).returncode:
        pytest.skip("no Slurm here: make test-slurm installs it")
    started = subprocess.run([ONE_NODE, "start"], capture_output=True, text=True)
    assert started.returncode == 0, started.stderr
    place = started.stdout.strip()
    yield os.environ | {"SLURM_CONF": f"{place}/slurm.conf", "OMP_NUM_THREADS": "1"}
    subprocess.run([ONE_NODE, "stop"], check=True)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one job without Slurm makes."""
    folder = tmp_path_factory.mktemp("one")
    done = subprocess.run(
        [sys.executable, "-m", "interp_lab", *STUDY, f"output.root={folder}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return contents(result_path(done.stdout))


class Sweep:
    """A sweep through sbatch over so many shards, in a folder of its own.

    Args:
        folder: for outputs and the sweep's records.
        shards: jobs.
        environment: of the cluster.
    """

    def __init__(self, folder: Path, shards: int, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        indices = ",".join(map(str, range(shards)))
        self.command = [
            sys.executable,
            "-m",
            "interp_lab",
            *LAUNCHER,
            *STUDY,
            f"shard.index={indices}",
            f"shard.count={shards}",
            f"output.root={folder}/outputs",
        ]
        self.sweeps = 0

    def start(self) -> "subprocess.Popen[str]":
        """Give the command, with a folder of its own for this sweep."""
        self.sweeps += 1
        return subprocess.Popen(
            [*self.command, f"hydra.sweep.dir={self.place}"],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def place(self) -> Path:
        """The folder of the sweep that was started last."""
        return self.folder / f"sweep-{self.sweeps}"

    def slurm(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def parts_of(self, share: int, shards: int) -> list[Path]:
        """Return the parts that a share has written; a part's name begins with a sample's place."""
        parts = (self.folder / "outputs").glob("*/*/parts/*.part.h5")
        return [p for p in parts if int(p.name.split("-")[0]) % shards == share]

    def pid_of(self, share: int) -> int:
        """Return the process that a job of the sweep that was started last says to be."""
        [said] = self.place.glob(f".jobs/*/{share:06d}.json")
        return int(json.loads(said.read_text())["pid"])

    def queue_is_empty(self) -> bool:
        """Return whether no job waits or runs."""
        return not self.slurm("squeue", "-h").strip()


def test_a_job_that_dies_hard_is_made_up_for(
    slurm: dict[str, str], reference: dict[str, object], tmp_path: Path
) -> None:
    """Six jobs, one of them killed while it measures: the others take over its rest."""
    sweep, victim = Sweep(tmp_path, 6, slurm), 3
    command = sweep.start()
    wait_until(lambda: sweep.parts_of(victim, 6), "the first part of the victim", command)
    os.kill(sweep.pid_of(victim), signal.SIGKILL)
    out, err = command.communicate(timeout=PATIENCE)
    print(out, err)
    assert command.returncode == 1
    assert f"job {victim} " in err and "killed" in err
    wait_until(sweep.queue_is_empty, "the end of the other jobs")
    named = [line for line in out.splitlines() if line.startswith("results: ")]
    assert named and contents(result_path(named[-1])) == reference
    again = sweep.start()
    out, err = again.communicate(timeout=PATIENCE)
    print(out, err)
    assert again.returncode == 0, err
    assert contents(result_path(out)) == reference


def test_a_preempted_job_goes_on_from_its_parts(
    slurm: dict[str, str], reference: dict[str, object], tmp_path: Path
) -> None:
    """USR2, which Slurm sends before it takes a node away: the job goes back to the queue."""
    sweep = Sweep(tmp_path, 2, slurm)
    command = sweep.start()
    wait_until(lambda: sweep.parts_of(0, 2), "the first part of job 0", command)
    # It stands still until the signal is there: the tiny model would be done before.
    os.kill(sweep.pid_of(0), signal.SIGSTOP)
    job = next(j for j in sweep.slurm("squeue", "-h", "-r", "-o", "%i").split() if j.endswith("_0"))
    sweep.slurm("scancel", "--signal=USR2", job)
    wait_until(lambda: pending(sweep.pid_of(0), signal.SIGUSR2), "the signal")
    os.kill(sweep.pid_of(0), signal.SIGCONT)
    wait_until(lambda: restarts(sweep, job) == 1, "the job's return to the queue")
    # Slurm lets a job that was put back wait for two minutes.
    wait_until(lambda: "JobState=PENDING" in shown(sweep, job), "the job in the queue")
    sweep.slurm("scontrol", "update", f"jobid={job}", "starttime=now")
    out, err = command.communicate(timeout=PATIENCE)
    print(out, err)
    assert command.returncode == 0, err
    logs = "".join(p.read_text() for p in sweep.place.rglob("*_0_log.*"))
    assert "SIGUSR2" in logs and "preempted" in logs
    assert contents(result_path(out)) == reference


def pending(pid: int, number: int) -> bool:
    """Return whether a signal waits for a process that stands still."""
    status = Path(f"/proc/{pid}/status").read_text()
    waiting = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(waiting >> (number - 1) & 1)


def shown(sweep: Sweep, job: str) -> str:
    """Return what Slurm knows of a job."""
    return sweep.slurm("scontrol", "show", "job", job)


def restarts(sweep: Sweep, job: str) -> int:
    """Return how often Slurm has put a job back."""
    return int(shown(sweep, job).partition("Restarts=")[2].split()[0])


def wait_until(
    true: Callable[[], object], what: str, command: "subprocess.Popen[str] | None" = None
) -> None:
    """Wait for something, as long as the command lives."""
    end = time.monotonic() + PATIENCE
    while not true():
        if command is not None and command.poll() is not None:
            pytest.fail(f"the command ended before {what}: {command.communicate()}")
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.005)


def result_path(out: str) -> Path:
    """Return the result that a command named last."""
    return Path(out.strip().splitlines()[-1].removeprefix("results: "))


def contents(path: Path) -> dict[str, object]:
    """Return every dataset of a file, by path, as something that can be compared."""
    found: dict[str, object] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, str(item.dtype), item[()].tolist())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found
