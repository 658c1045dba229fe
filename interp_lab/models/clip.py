"""Vision towers of contrastive image-text models: CLIP and SigLIP.

Only the image side is loaded. A SigLIP tower has no CLS token; its token map says so by having
none, and what needs CLS is then not measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar

import torch
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

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.base import Prepared, Seen, as_picture
from interp_lab.models.devices import place
from interp_lab.models.family import TYPE, Family
from interp_lab.models.loading import (
    inputs_dtype,
    load_module,
    loading_notes,
    seeded,
    without_memory,
)
from interp_lab.models.patches import share_seen
from interp_lab.models.unhandled import refuse_unhandled
from interp_lab.models.weights import Weights
from interp_lab.tokens import Token, TokenMap

FAMILIES: dict[str, tuple[Any, Any, Any, str]] = {
    # family: configuration, network, image processor, module before the first layer
    "clip": (CLIPVisionConfig, CLIPVisionModel, CLIPImageProcessor, "pre_layrnorm"),
    "siglip": (SiglipVisionConfig, SiglipVisionModel, SiglipImageProcessor, "embeddings"),
}
# What a whole CLIP or SigLIP checkpoint holds beside its vision tower.
TEXT_SIDE = ("text_model", "text_projection", "visual_projection", "logit_scale", "logit_bias")


class ClipVision(Family):
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

    reads: ClassVar[tuple[str, ...]] = ("image",)
    needs: ClassVar[tuple[str, ...]] = ("image",)
    lacks: ClassVar[tuple[str, ...]] = ("answers", "gates")

    family: str = field(kw_only=True)
    processor: Any = field(default=None, metadata={TYPE: dict[str, Any] | None})

    def __post_init__(self) -> None:
        """Make the tower and what prepares its inputs."""
        if self.family not in FAMILIES:
            raise ConfigError(f"model.family={self.family!r}: give one of {', '.join(FAMILIES)}")
        weights = self.weights()
        random = weights.init == "random"
        made = (
            _random(self.family, weights, self.processor or {}, self.seed)
            if random
            else _pretrained(self.family, weights, self.device)
        )
        module, self.processor = made
        self.notes: list[str] = loading_notes(weights, module)
        module = place(module, weights.placement, self.device) if random else module
        self.device = weights.placement.entrance(self.device)
        self.module = module.eval().requires_grad_(False)
        config = self.module.config
        self.n_layers: int = config.num_hidden_layers
        self.grid: int = config.image_size // config.patch_size
        self.has_cls = self.family == "clip"
        # hidden.0 is what the first layer reads, hidden.n what layer n wrote: transformers'
        # numbering of hidden_states. The final layer norm comes after the last of them.
        self.hookpoints: dict[str, str] = {"hidden.0": FAMILIES[self.family][3]} | {
            f"hidden.{i + 1}": f"encoder.layers.{i}" for i in range(self.n_layers)
        }

    @staticmethod
    def skeleton(weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the tower that a YAML describes, without memory for its weights."""
        _, network, _, _ = FAMILIES[values["family"]]
        return without_memory(network, _configuration(values["family"], weights), weights)

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return pixel values (n, 3, size, size) and the map of CLS and cells for each sample.

        Raises:
            SampleError: if a sample has not exactly one image.
        """
        for sample in samples:
            if len(sample.images) != 1:
                raise SampleError(f"{sample.id}: {len(sample.images)} images; this tower takes one")
        batch = self.processor(images=[s.images[0] for s in samples], return_tensors="pt")
        pixels = batch["pixel_values"]
        size = self.module.config.image_size
        if tuple(pixels.shape[1:]) != (3, size, size):
            raise UnsupportedModelError(
                f"the image processor gives {tuple(pixels.shape[1:])}, the tower takes "
                f"(3, {size}, {size}); mend the checkpoint's preprocessor_config.json"
            )
        tokens = _token_map(self.grid, self.has_cls)
        normalised_by = (self.processor.image_mean, self.processor.image_std)
        return Prepared(
            inputs={"pixel_values": pixels.to(self.device, inputs_dtype(self.module))},
            seen=tuple(
                Seen(
                    tokens,
                    (as_picture(own, *normalised_by),),
                    shares=(share_seen(self.processor, *sample.images[0].size),),
                )
                for own, sample in zip(pixels, samples, strict=True)
            ),
        )

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        """Return each sample's last_hidden_state (positions, d_model) as the tower defines it."""
        return list(self.forward(prepared.inputs))

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return last_hidden_state (n, positions, d_model) as the tower defines it."""
        return self.module(**inputs).last_hidden_state


def _configuration(family: str, weights: Weights) -> Any:
    """Return the tower's configuration, of the checkpoint or of the YAML's architecture.

    Raises:
        UnsupportedModelError: if it is of another family, or says what is not computed here.
    """
    if weights.init == "random":
        config = FAMILIES[family][0](**weights.needed_architecture())
    else:
        config = weights.load(AutoConfig.from_pretrained, "configuration")
        kind = config.model_type.removesuffix("_vision_model")
        if kind != family:
            raise UnsupportedModelError(
                f"model.checkpoint={weights.checkpoint}: its model_type is {config.model_type!r}, "
                f"model.family says {family!r}"
            )
        config = getattr(config, "vision_config", config)
    refuse_unhandled(config, f"model.checkpoint={weights.checkpoint}")
    return config


def _random(family: str, weights: Weights, processor: dict[str, Any], seed: int) -> tuple[Any, Any]:
    _, network, processor_class, _ = FAMILIES[family]
    config = _configuration(family, weights)
    with seeded(seed, torch.device("cpu")):
        module = network(config)
    return module.to(weights.torch_dtype), processor_class(**processor)


def _pretrained(family: str, weights: Weights, device: torch.device) -> tuple[Any, Any]:
    _configuration(family, weights)
    module = load_module(FAMILIES[family][1], weights, device, ignored=TEXT_SIDE)
    return module, weights.load(AutoImageProcessor.from_pretrained, "image processor")


def _token_map(grid: int, has_cls: bool) -> TokenMap:
    cells = [
        Token(text=f"cell {r},{c}", role="image", modality="image", image=0, cell=(r, c))
        for r in range(grid)
        for c in range(grid)
    ]
    cls = [Token(text="CLS", role="cls", modality="none")] if has_cls else []
    return TokenMap(tokens=tuple(cls + cells), grids=((grid, grid),))
