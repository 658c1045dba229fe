"""Vision towers of contrastive image-text models: CLIP and SigLIP.

Only the image side is loaded. A SigLIP tower has no CLS token; its token map says so by having
none, and what needs CLS is then not measured. Their weights are read by the tower's own class, so
nothing of the text side is loaded; all else is `VisionTower`.
"""

from dataclasses import field
from typing import Any, ClassVar

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.models.family import TYPE
from interp_lab.models.loading import load_module
from interp_lab.models.unhandled import refuse_unhandled
from interp_lab.models.vision_tower import VisionTower
from interp_lab.models.weights import Weights

FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    # family: configuration, network, image processor
    "clip": (CLIPVisionConfig, CLIPVisionModel, CLIPImageProcessor),
    "siglip": (SiglipVisionConfig, SiglipVisionModel, SiglipImageProcessor),
}
# What a whole CLIP or SigLIP checkpoint holds beside its vision tower.
TEXT_SIDE = ("text_model", "text_projection", "visual_projection", "logit_scale", "logit_bias")


class ClipVision(VisionTower):
    """A CLIP or SigLIP vision tower on a device.

    Args:
        family: `clip` or `siglip`.
        processor: the image processor's values, used with `init: random`.

    The other options are those of `Family`; `architecture` holds the vision config's values.

    Raises:
        ConfigError: if the family is unknown.
        MissingInputError: if the checkpoint cannot be had.
        UnsupportedModelError: if the checkpoint is not of the family, or its configuration says
            what is not computed here.
    """

    # Tests compare both networks; a run of them need not.
    checks: ClassVar[bool] = False

    family: str = field(kw_only=True)
    processor: Any = field(default=None, kw_only=True, metadata={TYPE: dict[str, Any] | None})
    tower: str | None = field(default=None, init=False)
    processor_options: dict[str, Any] | None = field(default=None, init=False)

    @classmethod
    def configured(cls, weights: Weights, values: Any) -> Any:
        """Return the tower's configuration, of the checkpoint or of the YAML's architecture.

        Raises:
            ConfigError: if the family is unknown.
            UnsupportedModelError: if it is of another family, or says what is not computed here.
        """
        family = values["family"]
        if family not in FAMILIES:
            raise ConfigError(f"model.family={family!r}: give one of {', '.join(FAMILIES)}")
        if weights.init == "random":
            config = FAMILIES[family][0](**weights.needed_architecture())
        else:
            config = weights.load(AutoConfig.from_pretrained, "configuration")
            if config.model_type.removesuffix("_vision_model") != family:
                raise UnsupportedModelError(
                    f"model.checkpoint={weights.checkpoint}: its model_type is "
                    f"{config.model_type!r}, model.family says {family!r}"
                )
            config = getattr(config, "vision_config", config)
        refuse_unhandled(config, f"model.checkpoint={weights.checkpoint}")
        return config

    @classmethod
    def network_class(cls, config: Any) -> Any:
        """Return the class of the family's vision tower."""
        return next(network for kind, network, _ in FAMILIES.values() if isinstance(config, kind))

    def pretrained(self, weights: Weights, config: Any) -> Any:
        """Return the tower with the checkpoint's weights, its text side left out."""
        network = self.network_class(config)
        return load_module(network, weights, self.device, ignored=TEXT_SIDE)

    def image_processor(self, weights: Weights, config: Any) -> Any:
        """Return the checkpoint's image processor, or the family's with the YAML's values."""
        if weights.init == "random":
            return FAMILIES[self.family][2](**(self.processor or {}))
        return weights.load(AutoImageProcessor.from_pretrained, "image processor")
