"""Where a model's weights come from, and what is refused of them."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from interp_lab.identity.weights import fetched_commit, local_place
from interp_lab.models.files import (
    cause_of,
    check_place,
    first_line,
    is_out_of_memory,
    problem_of_place,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ZOO = "zoo:"


def dtype_of(name: str) -> torch.dtype:
    """Return torch's dtype of the name that `model.dtype` gives.

    Raises:
        ConfigError: if it is none of them.
    """
    if name not in DTYPES:
        near = did_you_mean(name, DTYPES)
        raise ConfigError(f"model.dtype={name!r}: give one of {', '.join(DTYPES)}.{near}")
    return DTYPES[name]


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from, as its YAML says.

    Args:
        checkpoint: hub id, local folder, or `zoo:<name>` for a model that is shipped.
        revision: branch, tag or commit on the hub.
        dtype: float32, float16 or bfloat16.
        init: `pretrained`, or `random` for the real architecture without any download.
        trust_remote_code: run code that the checkpoint brings.
        architecture: the configuration that `init: random` builds from.
    """

    checkpoint: str
    revision: str | None = None
    dtype: str = "float32"
    init: str = "pretrained"
    trust_remote_code: bool = False
    architecture: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dtype_of(self.dtype)
        if not self.checkpoint.strip():
            raise ConfigError("model.checkpoint=: is empty; give a hub id, a folder or zoo:NAME")
        if self.init not in ("pretrained", "random"):
            raise ConfigError(f"model.init={self.init!r}: give pretrained or random")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it."""
        return dtype_of(self.dtype)

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
            if local is not None:
                raise MissingInputError(self._unloadable(what, local, error)) from error
            first = first_line(error)
            offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            raise MissingInputError(
                f"model.checkpoint={self.checkpoint}: cannot load the {what}; it is no folder here "
                f"and the hub{offline} does not give it, or it is damaged. Check the id and the "
                f"network, give a folder, or use model.init=random. Cause: {first}"
            ) from error

    def _unloadable(self, what: str, place: Path, error: Exception) -> str:
        """Return the line for a folder or file here that a loader does not take."""
        problem = problem_of_place(place, parse=True)
        if problem:
            return f"model.checkpoint={self.checkpoint}: cannot load the {what}: {problem}"
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
