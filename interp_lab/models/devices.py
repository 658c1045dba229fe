"""Where the parts of a network lie: one device, or cards, the CPU and the disk by accelerate.

With `model.device_map` accelerate hooks each part: its inputs go to its device, and weights that
wait on the CPU or the disk are brought in for its forward. The numbers are those of the same
network on one device.
"""

import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import align_module_device, get_balanced_memory, get_max_memory

from interp_lab.errors import ConfigError, DeviceError, did_you_mean, reason_of
from interp_lab.models.base import resolve_device

# Says that weights wait elsewhere, which the user asked for.
logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
WORDS = ("auto", "balanced", "balanced_low_0", "sequential")
CPU, DISK = "cpu", "disk"
SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B)", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """What `model.device_map` and its companions say.

    Args:
        device_map: `auto`, `balanced`, `balanced_low_0` or `sequential`; a device; or module path
            -> device, where a number is a card and `disk` the offload folder. None: one device.
        max_memory: card's number or `cpu` -> bytes, or a text such as `10GiB`; what the words may
            use. A card that is not named is not used.
        offload_folder: where weights for which there is no memory wait on the disk.
    """

    device_map: str | Mapping[str, Any] | None = None
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | None = None

    def __post_init__(self) -> None:
        if not self.device_map:
            for key in ("max_memory", "offload_folder"):
                if getattr(self, key) is not None:
                    raise ConfigError(
                        f"model.{key}: is for a model of several devices; give model.device_map "
                        "too, such as auto"
                    )
        if self.max_memory is not None:
            self._check_memory(self.max_memory)
        if isinstance(self.device_map, Mapping):
            for path, place in self.device_map.items():
                _device(f"model.device_map.{path}", place, (DISK,))
            if DISK in self.device_map.values() and not self.offload_folder:
                raise ConfigError(
                    "model.device_map: leaves parts on the disk; give model.offload_folder=FOLDER, "
                    "where they wait"
                )
        elif self.device_map and self.device_map not in WORDS:
            _device("model.device_map", self.device_map, WORDS)

    def _check_memory(self, memory: Mapping[int | str, int | str]) -> None:
        if self.device_map not in WORDS:
            raise ConfigError(
                "model.max_memory: bounds what model.device_map=auto, balanced, balanced_low_0 or "
                "sequential may use; a map of your own already says where each part lies"
            )
        for place, size in memory.items():
            _device(f"model.max_memory.{place}", place, ())
            if isinstance(size, str) and not SIZE.fullmatch(size.strip()):
                raise ConfigError(
                    f"model.max_memory.{place}={size!r}: give bytes, or a text such as 10GiB"
                )

    def check_there(self) -> None:
        """Check that the devices that are named are on this machine.

        Raises:
            DeviceError: names the key and the device.
        """
        for key, place in self._named():
            if place == DISK:
                continue
            try:
                resolve_device(place)
            except DeviceError as error:
                raise DeviceError(f"{key}: {error}") from error

    def _named(self) -> list[tuple[str, Any]]:
        """Return key and device of each device that the options name."""
        memory = [(f"model.max_memory.{k}", k) for k in self.max_memory or ()]
        if isinstance(self.device_map, Mapping):
            return [(f"model.device_map.{k}", v) for k, v in self.device_map.items()]
        if self.device_map and self.device_map not in WORDS:
            return [("model.device_map", self.device_map)]
        return memory

    def devices(self) -> list[torch.device]:
        """Return the devices that parts may lie on, each once; the disk is none."""
        named = [place for _, place in self._named() if place != DISK]
        if self.device_map in WORDS and self.max_memory is None:
            cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
            named = [*range(cards), CPU]
        return list(dict.fromkeys(_torch_device(place) for place in named))

    def bounds(self) -> dict[str, int]:
        """Return device -> bytes that may be used of it, where `max_memory` says."""
        named = (self.max_memory or {}).items()
        return {str(_torch_device(place)): bytes_of(size) for place, size in named}

    def __bool__(self) -> bool:
        """Whether several devices, or another than `device`, are asked for."""
        return bool(self.device_map)

    def entrance(self, device: torch.device) -> torch.device:
        """Return the device that a model's inputs go to: the first card that it may use.

        Args:
            device: of the job, for a model without a device_map.
        """
        if not self.device_map:
            return device
        places = self.devices()
        return next((p for p in places if p.type != CPU), torch.device(CPU))

    def loading(
        self, device: torch.device, folder: Path | None, table: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what `from_pretrained` is given of it; without a map the device, if no CPU.

        Args:
            device: of the job.
            folder: where offloaded weights go.
            table: the map of parts, none of them within another.
        """
        if not self.device_map:
            return {} if device.type == CPU else {"device_map": {"": device}}
        self.check_there()
        given: dict[str, Any] = {"device_map": table or self.device_map}
        if self.max_memory is not None:
            given["max_memory"] = _numbered(self.max_memory)
        return given | ({"offload_folder": str(folder)} if folder else {})

    def folder(self) -> Path | None:
        """Return a new folder for the weights of one loaded model that wait on the disk.

        Two jobs never write to the same one.

        Raises:
            ConfigError: if it cannot be made.
        """
        if not self.offload_folder:
            return None
        above = Path(self.offload_folder).expanduser()
        try:
            above.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="weights-", dir=above))
        except OSError as error:
            raise ConfigError(
                f"model.offload_folder={self.offload_folder}: no folder can be made there "
                f"({reason_of(error)}); give one that can be written to"
            ) from error


def _torch_device(place: Any) -> torch.device:
    """Return a device as torch names it; a number alone is a card, as accelerate reads it."""
    return torch.device(f"cuda:{place}" if str(place).isdigit() else str(place))


def _device(key: str, place: Any, words: tuple[str, ...]) -> None:
    """Check a device that a map names, or one of the words in its place.

    Raises:
        ConfigError: if it is neither.
    """
    if place in words:
        return
    try:
        _torch_device(place)
    except RuntimeError as error:
        known = ["cpu", "cuda:0", *words]
        raise ConfigError(
            f"{key}={place!r}: give a device such as cpu or cuda:1"
            f"{', or ' if words else ''}{', '.join(words)}.{did_you_mean(str(place), known)}"
        ) from error


def bytes_of(size: int | str) -> int:
    """Return a size such as `10GiB` in bytes."""
    from accelerate.utils import convert_file_size_to_int

    return int(
        convert_file_size_to_int(str(size).replace(" ", "")) if isinstance(size, str) else size
    )


def sizes_by_device(module: torch.nn.Module, placement: Placement) -> dict[str, int]:
    """Return device -> bytes of the weights and buffers that a map gives it; empty for the words.

    Args:
        module: the network, with or without memory for its weights.
    """
    device_map = placement.device_map
    if not device_map or device_map in WORDS:
        return {}
    table = device_map if isinstance(device_map, Mapping) else {"": device_map}
    sizes: dict[str, int] = {}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        path = max((p for p in table if _covers(p, name)), key=len, default="")
        where = table.get(path, CPU)
        place = DISK if where == DISK else str(_torch_device(where))
        sizes[place] = sizes.get(place, 0) + value.numel() * value.element_size()
    return sizes


def _numbered(memory: Mapping[int | str, int | str]) -> dict[int | str, int | str]:
    """Return a table of memory with cards as numbers, which a command line gives as text."""
    return {int(k) if str(k).isdigit() else k: v for k, v in memory.items()}


def check_paths(module: torch.nn.Module, placement: Placement) -> None:
    """Check that a map names parts of the network, and all of it.

    Args:
        module: the network, with or without memory for its weights.

    Raises:
        ConfigError: for a path that is no part, or a weight that the map leaves out.
    """
    if not isinstance(placement.device_map, Mapping):
        return
    weights = list(module.state_dict(keep_vars=True))
    parts = {name for name, _ in module.named_modules()} | set(weights)
    for path in placement.device_map:
        if path not in parts:
            top = [name for name in parts if name.count(".") <= max(path.count("."), 1)]
            raise ConfigError(
                f"model.device_map.{path}: the network has no such part."
                f"{did_you_mean(path, top) or ' Known: ' + ', '.join(_top(module))}"
            )
    left = [w for w in weights if not any(_covers(path, w) for path in placement.device_map)]
    if left:
        raise ConfigError(
            f"model.device_map: gives no device to {left[0]}"
            f"{f' and {len(left) - 1} more weights' if len(left) > 1 else ''}; name their part too "
            "('' is the whole network)"
        )


def disjoint(module: torch.nn.Module, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map none of whose parts lies within another: the narrower ones count.

    Args:
        module: the network, which `check_paths` has compared with the map.
        table: path -> device; '' is the whole network.
    """
    found: dict[str, Any] = {}

    def visit(path: str, part: torch.nn.Module, where: Any) -> None:
        where = table.get(path, where)
        if path and not any(other.startswith(f"{path}.") for other in table):
            found[path] = where
            return
        above = f"{path}." if path else ""
        for name, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            found[above + name] = table.get(above + name, where)
        for name, child in part.named_children():
            visit(above + name, child, where)

    visit("", module, None)
    return {path: where for path, where in found.items() if where is not None}


def _covers(path: str, weight: str) -> bool:
    return path in ("", weight) or weight.startswith(f"{path}.")


def _top(module: torch.nn.Module) -> list[str]:
    names = [name for name, _ in module.named_modules() if name and name.count(".") <= 1]
    return names[:12]


def place(module: Any, placement: Placement, device: torch.device) -> Any:
    """Return a network that lies in host memory, spread as its placement says.

    Raises:
        ConfigError: if parts would wait on the disk and no folder is given.
    """
    if not placement:
        return module.to(device)
    placement.check_there()
    check_paths(module, placement)
    device_map = _map_of(module, placement)
    module.hf_device_map = device_map
    refuse_waiting(module, placement)
    folder = placement.folder()
    with _removed_after_an_error(folder):
        return removing(_spread(module, device_map, folder), folder)


def _spread(module: Any, device_map: Mapping[str, Any], folder: Path | None) -> Any:
    if len(set(map(str, device_map.values()))) == 1 and DISK not in device_map.values():
        return module.to(_torch_device(next(iter(device_map.values()))))
    skip = getattr(module, "_skip_keys_device_placement", None)
    return dispatch_model(module, dict(device_map), offload_dir=folder, skip_keys=list(skip or ()))


@contextmanager
def waiting_in(placement: Placement) -> Iterator[Path | None]:
    """Give a new folder for weights that wait; it is deleted if what loads them fails."""
    folder = placement.folder()
    with _removed_after_an_error(folder):
        yield folder


@contextmanager
def _removed_after_an_error(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse_waiting(module: Any, placement: Placement) -> None:
    """Refuse parts that would be read from the disk at each forward though nobody asked for it.

    Raises:
        ConfigError: if parts are on the disk and no folder is given.
    """
    device_map = getattr(module, "hf_device_map", {})
    if DISK in device_map.values() and not placement.offload_folder:
        raise ConfigError(
            "model.device_map: not all weights fit into the memory that they may use, and the "
            "rest would be read from the disk at each forward; give model.offload_folder=FOLDER "
            "if that is meant, or a larger model.max_memory"
        )


def _map_of(module: Any, placement: Placement) -> dict[str, Any]:
    """Return which part goes where; the words are worked out from sizes, as transformers does."""
    device_map = placement.device_map
    if isinstance(device_map, Mapping):
        return disjoint(module, device_map)
    if device_map not in WORDS:
        return {"": str(device_map)}
    whole = list(getattr(module, "_no_split_modules", None) or ())
    given = None if placement.max_memory is None else _numbered(placement.max_memory)
    if device_map == "sequential":
        room = get_max_memory(given)
    else:
        low = device_map == "balanced_low_0"
        room = get_balanced_memory(module, given, whole, low_zero=low)
    return dict(infer_auto_device_map(module, room, whole))


def removing(module: Any, folder: Path | None) -> Any:
    """Return the module, with whose end a folder of offloaded weights is deleted."""
    if folder is not None:
        weakref.finalize(module, shutil.rmtree, folder, ignore_errors=True)
    return module


def places_of(module: Any, device: torch.device) -> list[str]:
    """Return the names of all devices that a network's weights lie on, its own first."""
    found = [device, *getattr(module, "hf_device_map", {}).values()]
    named = ["disk" if p == DISK else str(_torch_device(p)) for p in found]
    return list(dict.fromkeys(named))


def own_weights(module: torch.nn.Module) -> Any:
    """Yield path and value of each weight, also of those that wait on the CPU or the disk.

    Only one part's waiting weights are in memory at a time.
    """
    for path, part in module.named_modules():
        with align_module_device(part):
            for name, weight in part.named_parameters(recurse=False):
                yield f"{path}.{name}" if path else name, weight
