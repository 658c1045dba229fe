"""Which classes the atlas goes through: one of every model type that the installed library knows.

A type may have a dozen classes (with a head for each task); their attention is the same, so the
one that does most is taken: one that generates before one that classifies.
"""

import importlib
import inspect
from dataclasses import dataclass

import transformers
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import (
    CONFIG_MAPPING_NAMES,
    model_type_to_module_name,
)

# Tasks of the library's tables, what does most first; "" is the table of bare models.
ORDER = (
    *("MULTIMODAL_LM", "IMAGE_TEXT_TO_TEXT", "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM"),
    *("CAUSAL_LM", "MASKED_LM", "", "PRETRAINING", "TEXT_TO_WAVEFORM", "TEXT_TO_SPECTROGRAM"),
    *("AUDIO_CLASSIFICATION", "CTC", "OBJECT_DETECTION", "IMAGE_CLASSIFICATION"),
    *("VIDEO_CLASSIFICATION", "MASK_GENERATION", "DEPTH_ESTIMATION"),
)
# Endings of class names, for types that stand in no table.
ENDINGS = ("ForConditionalGeneration", "ForCausalLM", "Model", "Encoder", "Decoder")


class MissingPackageError(Exception):
    """A class needs a package that is not installed."""


@dataclass(frozen=True)
class Chosen:
    """A model type's configuration and the class that stands for it."""

    model_type: str
    config: type
    model: type[PreTrainedModel]


def all_types() -> list[str]:
    """Return every model type that the installed transformers has, in order of the alphabet."""
    return sorted(CONFIG_MAPPING_NAMES)


def choose(model_type: str) -> Chosen | None:
    """Return a type's class, or None where it is only a part of another type's model.

    Raises:
        MissingPackageError: if its configuration or class cannot be imported for want of a package.
    """
    config = _imported(CONFIG_MAPPING_NAMES[model_type])
    if config is None:
        return None
    tables = _tables()
    for task in (*ORDER, *(t for t in tables if t not in ORDER)):
        names = tables.get(task, {}).get(model_type) or ()
        for name in (names,) if isinstance(names, str) else names:
            model = _imported(name)
            if model is not None:
                return Chosen(model_type, config, model)
    model = _without_table(model_type, config)
    return None if model is None else Chosen(model_type, config, model)


def _tables() -> dict[str, dict[str, str | tuple[str, ...]]]:
    """Return the library's tables: task -> model type -> names of classes."""
    found = {}
    for name in vars(modeling_auto):
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            task = name.removeprefix("MODEL_").removesuffix("MAPPING_NAMES").strip("_")
            found[task.removeprefix("FOR_")] = getattr(modeling_auto, name)
    return found


def _imported(name: str) -> type | None:
    found = getattr(transformers, name, None)
    # In place of a class whose package is missing the library has a dummy that says which.
    if found is not None and hasattr(found, "_backends"):
        needed = ", ".join(found._backends)
        raise MissingPackageError(needed)
    return found


def _without_table(model_type: str, config: type) -> type[PreTrainedModel] | None:
    """Return the class of the type's own file that is made from this very configuration."""
    folder = model_type_to_module_name(model_type)
    try:
        file = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("transformers"):
            return None
        raise MissingPackageError(error.name) from error
    own = [
        cls
        for _, cls in inspect.getmembers(file, inspect.isclass)
        if issubclass(cls, PreTrainedModel)
        and cls.config_class is config
        and cls.forward is not PreTrainedModel.forward
        and "forward" in vars(cls)
    ]
    ranked = sorted(own, key=lambda c: (_rank(c.__name__), len(c.__name__)))
    return ranked[0] if ranked else None


def _rank(name: str) -> int:
    return next((i for i, end in enumerate(ENDINGS) if name.endswith(end)), len(ENDINGS))
