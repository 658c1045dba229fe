"""What is assumed of Hydra's inside: its override parser, its one global state, its records.

And that it is strict about keys by a flag (`struct`), which a node may have set for itself.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf

VERSION_BASE = "1.3"
# Packages whose classes Hydra's own nodes (launchers, callbacks, sweepers) may name.
OF_HYDRA = ("hydra.", "hydra_plugins.", "interp_lab.run.sweep.")


class ForeignTargetError(ValueError):
    """A node of Hydra's names something that is neither Hydra's nor ours; it is not imported."""


def guard_targets() -> None:
    """Let Hydra make classes of Hydra and its plugins, and ours, alone: `_instantiate2._locate`.

    Callbacks are made before a job has its configuration, so this cannot wait for it. What a study
    names is not made by Hydra.
    """
    from hydra._internal.instantiate import _instantiate2 as module

    _instantiate2: Any = module
    locate = _instantiate2._locate
    if getattr(locate, "guarded", False):
        return

    def located(path: str) -> Any:
        if not path.startswith(OF_HYDRA):
            raise ForeignTargetError(
                f"hydra: _target_={path} is neither Hydra's nor of a plugin of its and was not "
                "imported; take it out of the command or file"
            )
        return locate(path)

    located.guarded = True  # type: ignore[attr-defined]
    _instantiate2._locate = located


class OwnFolders(SearchPathPlugin):
    """Lets Hydra find the user's YAML files, after the package's and before registered ones.

    A plugin's folders also count for tab completion and go along to worker processes; those of
    `hydra.searchpath` do not count for the first, and a file may set that key for itself.
    """

    folders: tuple[Path, ...] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders; Hydra calls it whenever it composes."""
        for folder in self.folders:
            search_path.append(provider="own", path=f"file://{folder}")


def search_in(folders: Sequence[Path]) -> None:
    """Let Hydra look for YAML files in these folders too, from now on in this process."""
    if OwnFolders not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(OwnFolders)
    OwnFolders.folders = tuple(folder.absolute() for folder in folders)


def packaged_folder() -> Path:
    """Return the folder of Hydra's own YAML files, which it looks in before all others."""
    import hydra.conf

    return Path(str(hydra.conf.__file__)).parent


def registered_options() -> frozenset[str]:
    """Return what is registered without a file: plugins' nodes and the schema (`group/option`).

    Hydra looks there last, so a file of the same name would take its place.
    """
    repo: dict[str, Any] = ConfigStore.instance().repo
    found: list[str] = []

    def look(node: dict[str, Any], above: str) -> None:
        for name, held in node.items():
            if isinstance(held, dict):
                look(held, f"{above}{name}/")
            else:
                found.append(f"{above}{name}".removesuffix(".yaml"))

    look(repo, "")
    return frozenset(found)


def chosen_options(settings: Any) -> dict[str, Any]:
    """Return group -> option of a job, also those that defaults chose: `runtime.choices`."""
    return dict(settings.runtime.choices)


def config_name(settings: Any) -> str:
    """Return the name of the configuration that a job began with: `job.config_name`."""
    return str(settings.job.config_name)


@dataclass(frozen=True)
class Typed:
    """One override as Hydra's own parser reads it."""

    _override: Override

    @property
    def text(self) -> str:
        """The override as it was typed: `input_line`."""
        return str(self._override.input_line)

    @property
    def key(self) -> str:
        """Its key or group without `+`, `~` and `@package`: `key_or_group`."""
        return self._override.key_or_group

    @property
    def marked_key(self) -> str:
        """Its key with `+`, `~` and `@package`, as it stands before the equals sign."""
        return self._override.get_key_element()

    @property
    def deletes(self) -> bool:
        """Whether it takes a key away (`~key`)."""
        return self._override.is_delete()

    @property
    def is_sweep(self) -> bool:
        """Whether it is several values, for a job each: `is_sweep_override`."""
        return self._override.is_sweep_override()

    @property
    def value(self) -> Any:
        """Its value as YAML would read it; not to be asked of a list of a sweep."""
        return self._override.value()

    @property
    def values(self) -> list[str]:
        """Its values as texts, quoted so that they can be typed again; several in a sweep."""
        if self.is_sweep:
            return list(self._override.sweep_string_iterator())
        return [self._override.get_value_element_as_str()]


def parsed(overrides: Sequence[str]) -> list[Typed]:
    """Return overrides as Hydra's parser reads them.

    `glob(*)` is looked up in the configuration that is in use in this process, if there is one.

    Raises:
        hydra.errors.OverrideParseException: for what is not an override.
    """
    known = GlobalHydra.instance()
    loader = known.config_loader() if known.is_initialized() else None
    parser = OverridesParser.create(config_loader=loader)
    return [Typed(override) for override in parser.parse_overrides(list(overrides))]


def check_flags(arguments: Sequence[str]) -> None:
    """Check flags by the parser that Hydra takes them apart with: `get_args_parser`.

    Raises:
        argparse.ArgumentTypeError: for a flag that it does not know or a value that is not one;
            by itself it would print its usage and end the process.
    """

    def say(message: str) -> NoReturn:
        raise ArgumentTypeError(message)

    parser = get_args_parser()
    parser.error = say  # type: ignore[method-assign]
    parser.parse_args(list(arguments))


def composed(folder: Path, overrides: Sequence[str] = (), name: str = "config") -> DictConfig:
    """Return the configuration `name` of a folder.

    Hydra composes for one folder at a time in a process, so what it had in use is let go first.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: if it does not fit.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base=VERSION_BASE):
        return compose(name, overrides=list(overrides))


def open_node() -> Any:
    """Return a schema's node that takes keys which no YAML lists; unset until a YAML fills it.

    Its class's signature says which keys there are (`config.nodes.check_arguments`); with Hydra's
    strictness the YAML would be a second schema, and the shorter one. The flag stays with the node
    when a YAML is merged into it, and counts before that of the root.
    """
    return DictConfig(MISSING, flags={"struct": False})


def own_settings() -> Any:
    """Return Hydra's own settings of the job that runs now: `HydraConfig`, once it is composed."""
    return HydraConfig.get()


def in_sweep(settings: Any) -> bool:
    """Return whether a job is one of a sweep: its `mode` is MULTIRUN, in a worker process too."""
    return settings.mode == RunMode.MULTIRUN


def typed_overrides(settings: Any) -> list[str]:
    """Return what was typed for a job, without what concerns Hydra itself: `overrides.task`."""
    return [str(override) for override in settings.overrides.task]


def job_number(settings: Any) -> int:
    """Return the number of a job in its sweep, from 0 on: `job.num`."""
    return int(settings.job.num)


def sweep_folder(settings: Any) -> Path:
    """Return the folder that all jobs of a sweep share: `sweep.dir`, resolved before they begin."""
    return Path(settings.sweep.dir).absolute()


def config_folders(settings: Any) -> list[Path]:
    """Return the folders that a job's YAML files came from: `runtime.config_sources`."""
    return [Path(s.path) for s in settings.runtime.config_sources if s.schema == "file"]


def output_folder(settings: Any) -> Path:
    """Return the folder of a job's own log: `runtime.output_dir`."""
    return Path(settings.runtime.output_dir)


def sweep_record(folder: Path) -> Path:
    """Return the file that the sweeper writes into a sweep's folder before its first job."""
    return folder / "multirun.yaml"


def recorded_settings(record: Path) -> Any:
    """Return Hydra's own settings of a sweep, from that file."""
    return OmegaConf.load(record).hydra


def swept_overrides(settings: Any) -> list[str]:
    """Return what a sweep was asked for: its configured `sweeper.params`, then what was typed.

    The basic sweeper numbers the jobs in the order of `itertools.product` over these.
    """
    given = [f"{key}={value}" for key, value in (settings.sweeper.get("params") or {}).items()]
    return given + typed_overrides(settings)
