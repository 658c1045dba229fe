"""Where a model's weights come from, and what is refused of them."""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from interp_lab.errors import (
    ConfigError,
    InterpLabError,
    MissingInputError,
    UnsupportedModelError,
    did_you_mean,
)
from interp_lab.identity.checkpoints import AUTO, dtype_said, quantization_said, settings_of
from interp_lab.identity.weights import fetched_commit, local_place
from interp_lab.libraries.transformers_loading import without_adapters
from interp_lab.models.devices import Placement
from interp_lab.models.files import (
    cause_of,
    check_place,
    first_line,
    is_out_of_memory,
    problem_of_place,
)
from interp_lab.models.hub import causes, hub_line

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ZOO = "zoo:"


def dtype_of(name: str, words: Sequence[str] = ()) -> torch.dtype:
    """Return torch's dtype of the name that `model.dtype` gives.

    Args:
        name: its value.
        words: other values that may stand there, for the message.

    Raises:
        ConfigError: if it is none of them.
    """
    if name not in DTYPES:
        known = (*DTYPES, *words)
        near = did_you_mean(name, known)
        raise ConfigError(f"model.dtype={name!r}: give one of {', '.join(known)}.{near}")
    return DTYPES[name]


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from and how they are loaded, as its YAML says.

    Args:
        checkpoint: hub id, local folder, or `zoo:<name>` for a model that is shipped.
        revision: branch, tag or commit on the hub.
        dtype: float32, float16 or bfloat16; auto is the one that the checkpoint names.
        init: `pretrained`, or `random` for the real architecture without any download.
        trust_remote_code: run code that the checkpoint brings.
        architecture: the configuration that `init: random` builds from.
        device_map, max_memory, offload_folder: see `Placement`.
        quantization: how weights are packed while they are loaded; see `models.quantization`.
        adapter: folder or hub id of a PEFT adapter that is put on the weights.
        adapter_revision: of its hub id.
        merge_adapter: add what it changes to the weights, once; else it is computed beside them.
    """

    checkpoint: str
    revision: str | None = None
    dtype: str = "float32"
    init: str = "pretrained"
    trust_remote_code: bool = False
    architecture: dict[str, Any] = field(default_factory=dict)
    device_map: str | Mapping[str, Any] | None = None
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | None = None
    quantization: Mapping[str, Any] | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    merge_adapter: bool = True

    def __post_init__(self) -> None:
        if self.dtype != AUTO:
            dtype_of(self.dtype, (AUTO,))
        if not self.checkpoint.strip():
            raise ConfigError("model.checkpoint=: is empty; give a hub id, a folder or zoo:NAME")
        if self.init not in ("pretrained", "random"):
            raise ConfigError(f"model.init={self.init!r}: give pretrained or random")
        if self.init == "random":
            for key in ("quantization", "adapter"):
                if getattr(self, key):
                    raise ConfigError(
                        f"model.{key}: changes the weights of a checkpoint, and model.init=random "
                        "has none; leave one of them out"
                    )
        self.check_revision()
        _ = self.placement  # which checks itself

    @classmethod
    def of_node(cls, target: Any, values: Mapping[str, Any]) -> "Weights":
        """Return the weights that a model's node names, with the defaults of its class.

        Args:
            target: the class.
            values: the node's plain values.
        """
        defaults = {k: p.default for k, p in inspect.signature(target).parameters.items()}
        given = {f.name: values.get(f.name, defaults.get(f.name)) for f in fields(cls)}
        empty = (None, inspect.Parameter.empty)
        return cls(**{k: v for k, v in given.items() if v not in empty})

    def fetch_settings(self) -> None:
        """Fetch the config.json of a hub id, so that what it says is known here.

        Raises:
            MissingInputError: if the hub does not give it.
        """
        if self.init == "random" or local_place(self.checkpoint) is not None:
            return
        from huggingface_hub import hf_hub_download

        def fetch(place: str, revision: str, **_: Any) -> str:
            return hf_hub_download(place, "config.json", revision=revision)

        if not settings_of(self.checkpoint, self.revision):
            self.load(fetch, "configuration")

    def check_revision(self) -> None:
        """Refuse a revision of what has none: a folder is what lies in it.

        Raises:
            ConfigError: names the key.
        """
        for key, name, revision in (
            ("checkpoint", self.checkpoint, self.revision),
            ("adapter", self.adapter, self.adapter_revision),
        ):
            if name and revision not in (None, "main") and local_place(name) is not None:
                option = "revision" if key == "checkpoint" else "adapter_revision"
                raise ConfigError(
                    f"model.{option}={revision}: model.{key}={name} lies on this machine, where it "
                    f"has no revisions; leave it out (model.{option}=null), or give a hub id"
                )

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it."""
        return dtype_of(self.dtype_name)

    @property
    def dtype_name(self) -> str:
        """The dtype's name; of `auto` the one that the checkpoint names.

        Raises:
            ConfigError: if the checkpoint names none, or one that nothing is measured in.
        """
        if self.dtype != AUTO:
            return self.dtype
        if self.init == "random":
            said = self.architecture.get("dtype") or self.architecture.get("torch_dtype")
        else:
            said = dtype_said(self.checkpoint, self.revision)
        said = None if said is None else str(said).removeprefix("torch.")
        if said in DTYPES:
            return str(said)
        why = f"says {said}" if said else "names no dtype, nor are all weights of one"
        raise ConfigError(
            f"model.dtype=auto: model.checkpoint={self.checkpoint} {why}; give one of "
            f"{', '.join(DTYPES)}"
        )

    @property
    def placement(self) -> Placement:
        """Where the weights go."""
        return Placement(self.device_map, self.max_memory, self.offload_folder)

    @property
    def packed(self) -> dict[str, Any] | None:
        """How the checkpoint itself says that its weights come quantised; None if they do not."""
        if self.init == "random":
            return None
        return quantization_said(settings_of(self.checkpoint, self.revision))

    def needed_architecture(self) -> dict[str, Any]:
        """Return the architecture.

        Raises:
            ConfigError: if the YAML has none.
        """
        if not self.architecture:
            raise ConfigError(
                "model.init=random needs model.architecture; this model's YAML has none"
            )
        return self.architecture

    def location(self) -> str:
        """Return what `from_pretrained` takes: a folder here, or a hub id.

        Raises:
            MissingInputError: if the checkpoint is written as a path and is not there.
        """
        if self.checkpoint.startswith(ZOO):
            from interp_lab.zoo import weights_path

            try:
                return str(weights_path(self.checkpoint.removeprefix(ZOO)))
            except ValueError as error:
                raise ConfigError(f"model.checkpoint={self.checkpoint}: {error}") from error
        path = Path(self.checkpoint).expanduser()
        looks_local = self.checkpoint.startswith((".", "/", "~")) or self.checkpoint.count("/") > 1
        if looks_local and not path.exists():
            raise MissingInputError(f"model.checkpoint={self.checkpoint}: no such folder")
        return str(path) if path.exists() else self.checkpoint

    def commit(self) -> str | None:
        """Return the commit on the hub that was fetched before, which the run's identity names."""
        if local_place(self.checkpoint) is not None:
            return None
        return fetched_commit(self.checkpoint, self.revision)

    def load(self, loader: Callable[..., Any], what: str, **options: Any) -> Any:
        """Call a `from_pretrained` on this checkpoint; a failure becomes one line.

        Args:
            loader: the class's `from_pretrained`.
            what: what is loaded, for the message ("model", "processor").
        """
        place = self.location()
        local = Path(place) if Path(place).exists() else None
        if local is not None:
            check_place(local, f"model.checkpoint={self.checkpoint}", what == "weights")
        # What transformers would report of missing weights is checked by `refuse_partial` instead.
        logging.set_verbosity_error()
        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        try:
            with without_adapters():
                return loader(
                    place,
                    revision=self.commit() or self.revision or "main",
                    trust_remote_code=self.trust_remote_code,
                    **options,
                )
        except ImportError as error:
            raise ConfigError(self._needs_package(what, options, error)) from error
        except InterpLabError:
            raise
        except Exception as error:  # third-party code: any type at all
            if is_out_of_memory(error):
                raise
            if needs_code(error) and not self.trust_remote_code:
                raise ConfigError(self._needs_code(what)) from error
            if local is not None:
                raise MissingInputError(self._unloadable(what, local, error)) from error
            raise MissingInputError(
                hub_line("model.checkpoint", self.checkpoint, self.revision, what, error)
            ) from error

    def _needs_code(self, what: str) -> str:
        return (
            f"model.checkpoint={self.checkpoint}: its {what} are made by Python code that the "
            "checkpoint brings, which would run here with all your rights; read that code, and if "
            "you trust it give model.trust_remote_code=true and, for a hub id, model.revision=... "
            "of what you read"
        )

    def _unloadable(self, what: str, place: Path, error: Exception) -> str:
        """Return the line for a folder or file here that a loader does not take."""
        problem = problem_of_place(place, parse=True)
        if problem:
            return f"model.checkpoint={self.checkpoint}: cannot load the {what}: {problem}"
        if what == "weights" and (self.quantization or self.packed):
            key = "model.quantization" if self.quantization else "quantization_config of the files"
            return (
                f"model.checkpoint={self.checkpoint}: cannot load the {what} as {key} says "
                f"({dict(self.quantization or self.packed or {})}) on this device and in "
                f"model.dtype={self.dtype}; take another. Cause: {cause_of(error)}"
            )
        kind = model_type_of(place)
        of = f" (its config.json says model_type {kind!r})" if kind else ""
        return (
            f"model.checkpoint={self.checkpoint}: cannot load the {what} from this folder{of}; is "
            f"it of the family that the model's YAML names, and whole? Cause: {cause_of(error)}"
        )

    def _needs_package(self, what: str, options: Mapping[str, Any], error: ImportError) -> str:
        attention = options.get("attn_implementation")
        if attention not in (None, "sdpa", "eager"):
            return attention_needs_package(attention, error)
        return (
            f"model.checkpoint={self.checkpoint}: the {what} needs a Python package that is not "
            f"installed, or is broken; install it. Cause: {first_line(error)}"
        )


def needs_code(error: BaseException) -> bool:
    """Return whether an error says that a checkpoint's own code would have to run."""
    return any("trust_remote_code" in str(e) for e in causes(error))


def attention_needs_package(attention: Any, error: Exception) -> str:
    """Return the line for an attention implementation whose package is not there."""
    return (
        f"model.attn_implementation={attention}: its package is not installed or does not work "
        f"here; install it, or give model.attn_implementation=sdpa. Cause: {first_line(error)}"
    )


def model_type_of(place: Path) -> str | None:
    """Return what a folder's config.json says of its family; None if it says nothing."""
    try:
        kind = json.loads((place / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None


def refuse_partial(info: Mapping[str, Any], checkpoint: str, ignored: Sequence[str] = ()) -> None:
    """Refuse a checkpoint that does not fill the model: a partial load gives wrong numbers.

    Args:
        info: transformers' loading info.
        ignored: prefixes of weights that the checkpoint may hold for parts that are not used.

    Raises:
        UnsupportedModelError: if weights are missing, left over or of the wrong shape.
    """
    missing = sorted(info.get("missing_keys", ()))
    extra = sorted(k for k in info.get("unexpected_keys", ()) if not k.startswith(tuple(ignored)))
    wrong = sorted(str(k) for k in info.get("mismatched_keys", ()))
    for problem, keys in (("lacks", missing), ("has unknown", extra), ("has misshapen", wrong)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise UnsupportedModelError(
                f"model.checkpoint={checkpoint}: {problem} weights {', '.join(keys[:5])}{more}; "
                "this checkpoint is not of the family that its YAML names"
            )
