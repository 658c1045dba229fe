"""Which launchers of sweeps can be used here: joblib is promised, Slurm and Ray are extras."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from interp_lab.doctor.findings import Finding

GROUP = "launchers"


@dataclass(frozen=True)
class Launcher:
    """A launcher: its option, the module that Hydra loads, the library, the extra (None: none)."""

    name: str
    plugin: str
    library: str
    extra: str | None


LAUNCHERS = (
    Launcher("joblib", "hydra_plugins.hydra_joblib_launcher.joblib_launcher", "joblib", None),
    Launcher(
        "slurm", "hydra_plugins.hydra_submitit_launcher.submitit_launcher", "submitit", "slurm"
    ),
    Launcher("ray", "hydra_plugins.hydra_ray_launcher.ray_launcher", "ray", "ray"),
)


def launcher_findings() -> Iterator[Finding]:
    """Yield whether each launcher can be imported."""
    for launcher in LAUNCHERS:
        yield launcher_finding(launcher)


def launcher_finding(launcher: Launcher) -> Finding:
    """Return whether a launcher can be imported; one that is not installed is no fault."""
    remedy = (
        f"pip install 'interp-lab[{launcher.extra}]'"
        if launcher.extra
        else ("pip install hydra-joblib-launcher")
    )
    try:
        if launcher.extra and find_spec(launcher.plugin) is None:
            raise ModuleNotFoundError
        import_module(launcher.plugin)
        library = import_module(launcher.library)
    except ModuleNotFoundError as error:
        if launcher.extra and (error.name is None or error.name in launcher.plugin):
            text = f"not installed; hydra/launcher={launcher.name} needs {remedy}"
            return Finding(GROUP, launcher.name, "note", text)
        return _broken(launcher, error, remedy)
    except Exception as error:
        return _broken(launcher, error, remedy)
    found = getattr(library, "__version__", "installed")
    return Finding(GROUP, launcher.name, "ok", str(found), {"version": str(found)})


def _broken(launcher: Launcher, error: Exception, remedy: str) -> Finding:
    text = f"cannot be imported ({type(error).__name__}: {error}); sweeps need it: {remedy}"
    return Finding(GROUP, launcher.name, "warning" if launcher.extra else "failure", text)
