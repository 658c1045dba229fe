"""Launchers: presets compose with and without their plugins, and a missing one is one line."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
from omegaconf import OmegaConf

from interp_lab.config.complaints import explain
from interp_lab.config.nodes import conf_dir

PRESETS = sorted(path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml"))
PLUGIN = {
    "slurm": "hydra_submitit_launcher",
    "slurm_local": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
    "ray_cluster": "hydra_ray_launcher",
}
EXTRA = {"hydra_submitit_launcher": "slurm", "hydra_ray_launcher": "ray"}


def installed(launcher: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{PLUGIN[launcher]}") is not None
    except ModuleNotFoundError:
        return False


def preset(name: str) -> dict[str, object]:
    loaded = OmegaConf.load(conf_dir() / "hydra" / "launcher" / f"{name}.yaml")
    return dict(OmegaConf.to_container(loaded, resolve=False))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_composes_whether_or_not_its_plugin_is_there(
    command: Callable[..., object], name: str
) -> None:
    said = command("--cfg", "hydra", "--package", "hydra.launcher", f"hydra/launcher={name}")
    assert said.code == 0, said.err
    assert OmegaConf.create(said.out)["_target_"] == preset(name)["_target_"]
    assert command("--help").code == 0


def test_help_lists_the_launchers(command: Callable[..., object]) -> None:
    listed = next(line for line in command("--help").out.splitlines() if "hydra/launcher" in line)
    for name in ("joblib", "slurm", "slurm_local", "ray", "ray_cluster"):
        assert name in listed.replace(",", "").split()


@pytest.mark.parametrize(("name", "kind"), [("slurm", "Slurm"), ("slurm_local", "Local")])
def test_a_preset_says_all_that_its_launcher_takes_and_nothing_else(name: str, kind: str) -> None:
    if not installed(name):
        pytest.skip("hydra-submitit-launcher is not installed")
    from hydra_plugins.hydra_submitit_launcher import config

    schema = OmegaConf.structured(getattr(config, f"{kind}QueueConf"))
    assert set(preset(name)) == set(schema)
    assert preset(name)["_target_"] == schema["_target_"]
    OmegaConf.merge(schema, {k: v for k, v in preset(name).items() if "${" not in str(v)})


@pytest.mark.parametrize("name", PLUGIN)
def test_a_launcher_that_is_not_installed_is_one_line_with_its_extra(
    command: Callable[..., object], name: str
) -> None:
    if installed(name):
        pytest.skip(f"{PLUGIN[name]} is installed")
    said = command("--multirun", f"hydra/launcher={name}", "seed=1,2")
    assert said.code == 1
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and f"interp-lab[{EXTRA[PLUGIN[name]]}]" in errors[0]


@pytest.mark.parametrize("name", PRESETS)
def test_hydras_word_for_a_missing_plugin_is_understood(name: str) -> None:
    error = RuntimeError(f"Unknown plugin class : '{preset(name)['_target_']}'")
    line = explain(error, [], [])
    assert line is not None and f"interp-lab[{EXTRA[PLUGIN[name]]}]" in line
