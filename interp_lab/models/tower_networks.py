"""Which network and which image processor a vision tower's checkpoint or YAML means."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import transformers
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.models.files import first_line
from interp_lab.models.unhandled import refuse_unhandled
from interp_lab.models.weights import Weights


def configuration_of(weights: Weights) -> Any:
    """Return the configuration, of the checkpoint or of the YAML's architecture.

    Raises:
        ConfigError: if no configuration can be made of the architecture.
        UnsupportedModelError: if it says what is not computed here.
    """
    if weights.init == "random":
        own = dict(weights.needed_architecture())
        kind = own.pop("model_type", None)
        try:
            config = AutoConfig.for_model(kind, **own)
        except Exception as error:  # third-party code: any type at all
            raise ConfigError(
                f"model.architecture, model_type={kind!r}: no configuration can be made of it; "
                "give a model_type that transformers knows (dinov2) and values of its own. "
                f"Cause: {first_line(error)}"
            ) from error
    else:
        config = weights.load(AutoConfig.from_pretrained, "configuration")
    refuse_unhandled(config, f"model.checkpoint={weights.checkpoint}")
    return config


def network_class(config: Any) -> Any:
    """Return the class of the network that a configuration describes, with all its parts.

    Raises:
        UnsupportedModelError: if transformers has none that gives hidden states.
    """
    kinds = ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModel")
    for auto in (getattr(transformers, kind, AutoModel) for kind in kinds):
        if type(config) in auto._model_mapping:
            found = auto._model_mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    if getattr(config, "auto_map", None):
        return AutoModel  # code of the checkpoint's own, where it is trusted
    raise UnsupportedModelError(
        f"model_type {config.model_type!r}: transformers has no network of it that gives hidden "
        "states; take the checkpoint of a vision tower, or of a model that has one"
    )


def image_processor(weights: Weights, processor: Any, options: Mapping[str, Any]) -> Any:
    """Return what makes pixel values of pictures.

    Args:
        weights: say where it comes from, if they are not random.
        processor: for random weights its values, with its class, or the place it comes from.
        options: values that take the place of the checkpoint's.

    Raises:
        ConfigError: if it is not named for random weights.
    """
    if weights.init != "random":
        return weights.load(AutoImageProcessor.from_pretrained, "image processor", **options)
    if isinstance(processor, str):
        source = Weights(processor)
        return source.load(AutoImageProcessor.from_pretrained, "image processor", **options)
    values = dict(processor or {})
    kind = getattr(transformers, str(values.pop("image_processor_type", "")), None)
    if kind is None:
        raise ConfigError(
            "model.init=random: give model.processor with the image processor's class as "
            "image_processor_type (CLIPImageProcessor), or the folder or id it comes from"
        )
    return kind(**values | dict(options))


def noise(size: tuple[int, int]) -> Image.Image:
    """Return a picture (width, height) of noise, always the same."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def side_of(processor: Any) -> int | None:
    """Return the side of the square that an image processor's values make of every picture."""
    values = processor if isinstance(processor, Mapping) else {}
    size = values.get("crop_size") or values.get("size") or {}
    side = size.get("height")
    return side if side == size.get("width") else None
