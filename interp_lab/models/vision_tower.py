"""Any vision tower of transformers, alone or inside a larger model.

Nothing is written here of a family: the layers and their hidden states are found in the network,
and which token is which cell of the picture, or none, is measured on it. A tower inside a larger
model (CLIP with its text side, a vision-language model) is run through the larger model's own
`get_image_features`, and what that does not need is let go.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from PIL import Image

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, InterpLabError, SampleError, UnsupportedModelError
from interp_lab.models import devices
from interp_lab.models.base import Prepared, Seen
from interp_lab.models.family import TYPE, Family
from interp_lab.models.files import first_line, is_out_of_memory
from interp_lab.models.loading import (
    inputs_dtype,
    load_module,
    loading_notes,
    refuse_not_finite,
    seeded,
    without_memory,
)
from interp_lab.models.placing.calls import first_tensor, inputs_of
from interp_lab.models.placing.cells import Placed, check, place
from interp_lab.models.placing.layers import (
    hidden_states,
    layers_of,
    outputs_at,
    refuse_other_numbering,
)
from interp_lab.models.placing.local import position_wise
from interp_lab.models.placing.tower import (
    kind_of_input,
    let_go,
    path_in,
    picture_of,
    processed,
    shares_of,
    token_map,
)
from interp_lab.models.tower_networks import (
    configuration_of,
    image_processor,
    network_class,
    noise,
    side_of,
)
from interp_lab.models.weights import Weights

# What checkpoints hold of heads behind a tower, which reads none of its hidden states from them.
HEADS = ("classifier", "cls_classifier", "distillation_classifier", "pooler", "decoder", "head")
# Keys of a configuration that say how many register tokens there are.
REGISTERS = ("num_register_tokens", "n_register_tokens", "num_registers")
# So many kinds of input are checked through all layers, which are the same for all kinds.
CHECKED = 4
# The pictures by which a tower is looked at when it is loaded, width and height.
FIRST_SIZE, OTHER_SIZE = (224, 224), (256, 160)


class VisionTower(Family):
    """A vision tower on a device.

    Args:
        tower: dotted path of the tower in a model that has more parts; null = found.
        processor: with `init: random`, the image processor: its values, with its class as
            `image_processor_type`, or the folder or hub id that it comes from.
        processor_options: values of the image processor that take the place of the checkpoint's,
            such as `{do_image_splitting: false}`.

    The other options are those of `Family`; `architecture` holds the configuration's values with
    its `model_type`.

    Attributes:
        checks: whether the map and the numbers of hidden states are checked through all layers
            for the first sizes of input, which costs two forwards each.
        has_cls: whether one of its tokens is a class token.
        one_grid: whether pictures of all shapes have the same grid of cells.

    Raises:
        MissingInputError: if the checkpoint cannot be had.
        UnsupportedModelError: if the network has no list of layers, or its tokens are not the
            cells of one grid; says what was seen.
    """

    reads: ClassVar[tuple[str, ...]] = ("image",)
    needs: ClassVar[tuple[str, ...]] = ("image",)
    lacks: ClassVar[tuple[str, ...]] = ("answers", "gates")
    checks: ClassVar[bool] = True

    tower: str | None = field(default=None, kw_only=True)
    processor: Any = field(default=None, kw_only=True, metadata={TYPE: dict[str, Any] | str | None})
    processor_options: dict[str, Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Make the tower and what prepares its inputs, and look at both."""
        weights = self.weights()
        random = weights.init == "random"
        self.name = f"model.checkpoint={self.checkpoint}"
        config = self.configuration(weights)
        whole = self.random(weights, config) if random else self.pretrained(weights, config)
        self.notes: list[str] = loading_notes(weights, whole)
        module = devices.place(whole, weights.placement, self.device) if random else whole
        self.device = weights.placement.entrance(self.device)
        self.module = module.eval().requires_grad_(False)
        self.processor = self.image_processor(weights, config)
        self.path = self.tower if self.tower is not None else path_in(self.module, self.name)
        self.network = self._network()
        self._places: dict[Any, Placed] = {}
        refuse_not_finite(self.module, f"model.checkpoint={self.checkpoint}")
        self._look()

    @classmethod
    def skeleton(cls, weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the network that a YAML describes, without memory for its weights."""
        config = cls.configured(weights, values)
        module = without_memory(cls.network_class(config), config, weights)
        if cls.checks:  # what the tower gets is the processor's choice, and not the network's
            vision: Any = getattr(module.config, "vision_config", module.config)
            vision.image_size = side_of(values.get("processor"))
        return module

    def configuration(self, weights: Weights) -> Any:
        """Return the configuration, of the checkpoint or of the YAML's architecture.

        Raises:
            UnsupportedModelError: if it says what is not computed here.
        """
        options = {name: getattr(self, name, None) for name in ("family", "tower")}
        return self.configured(weights, options)

    @classmethod
    def configured(cls, weights: Weights, values: Mapping[str, Any]) -> Any:
        """Return the configuration; `values` are the options of the YAML."""
        return configuration_of(weights)

    @classmethod
    def network_class(cls, config: Any) -> Any:
        """Return the class of the network that a configuration describes.

        Raises:
            UnsupportedModelError: if transformers has none that gives hidden states.
        """
        return network_class(config)

    def random(self, weights: Weights, config: Any) -> Any:
        """Return the network with random weights of the seed, on the CPU."""
        network = self.network_class(config)
        try:
            with seeded(self.seed, torch.device("cpu")):
                return network._from_config(config, dtype=weights.torch_dtype)
        except Exception as error:  # third-party code: any type at all
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"model.architecture: {network.__name__} cannot be made of it; check its values, "
                f"and that the package it needs is installed. Cause: {first_line(error)}"
            ) from error

    def pretrained(self, weights: Weights, config: Any) -> Any:
        """Return the network with the checkpoint's weights."""
        network: Any = self.network_class(config)
        if "add_pooling_layer" in inspect.signature(network.__init__).parameters:
            # Classifiers are saved without one; it comes after the hidden states.
            network = SimpleNamespace(
                from_pretrained=partial(network.from_pretrained, add_pooling_layer=False),
                _from_config=network._from_config,
                config_class=network.config_class,
            )
        return load_module(network, weights, self.device, ignored=HEADS)

    def image_processor(self, weights: Weights, config: Any) -> Any:
        """Return what makes pixel values of pictures.

        Raises:
            ConfigError: if the YAML names no processor for random weights.
        """
        return image_processor(weights, self.processor, self.processor_options or {})

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return the tower's inputs for pictures, and the map of each one's tokens.

        Raises:
            SampleError: if a sample has not exactly one image.
            UnsupportedModelError: if a size of input is met that cannot be placed.
        """
        for sample in samples:
            if len(sample.images) != 1:
                raise SampleError(f"{sample.id}: {len(sample.images)} images; this tower takes one")
        images = [sample.images[0] for sample in samples]
        inputs = self._inputs(images)
        seen = []
        for row, image in enumerate(images):
            placed = self.placed(inputs, row, image.size)
            pictures = (picture_of(self.processor, inputs, row, image, placed),)
            tokens = token_map(placed, self.registers, self.name)
            seen.append(Seen(tokens, pictures, shares=shares_of(self.processor, placed, image)))
        return Prepared(inputs=inputs, seen=tuple(seen))

    def placed(self, inputs: Mapping[str, Any], row: int, size: tuple[int, int]) -> Placed:
        """Return where the tokens of a row stand, measured when its kind of input is met first.

        Args:
            inputs: of a batch.
            row: of the batch.
            size: width and height of the row's picture.
        """
        key = kind_of_input(inputs, row)
        if key not in self._places:
            self._places[key] = self._measured(size)
        return self._places[key]

    def run(self, prepared: Prepared) -> Sequence[torch.Tensor]:
        """Return each sample's last_hidden_state (positions, d_model) as the tower defines it."""
        hidden = self.forward(prepared.inputs)
        if hidden.dim() == 3 and len(hidden) == len(prepared.seen):
            return list(hidden)
        packed = hidden[0] if hidden.dim() == 3 else hidden
        lengths = [len(seen.tokens) for seen in prepared.seen]
        # Towers that merge cells at their end give fewer tokens than they have cells.
        return list(packed.split([n * len(packed) // sum(lengths) for n in lengths]))

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return last_hidden_state (n, positions, d_model) as the tower defines it."""
        output = self._through(inputs)
        states = getattr(output, "last_hidden_state", output)
        return states[0] if isinstance(states, tuple) else states

    @property
    def registers(self) -> int:
        """The number of register tokens that the configuration states."""
        config = getattr(self.network, "config", self.module.config)
        found = [getattr(config, key, None) for key in REGISTERS]
        return next((int(n) for n in found if isinstance(n, int)), 0)

    def _network(self) -> Any:
        try:
            return self.module.get_submodule(self.path)
        except AttributeError as error:
            raise ConfigError(
                f"model.tower={self.path}: {type(self.module).__name__} has no such module; it has "
                f"{', '.join(n for n, _ in self.module.named_children())}"
            ) from error

    def _look(self) -> None:
        """Find the hidden states, place the tokens, and let go of what is not run."""
        shape: tuple[int, ...] | None = None
        try:
            inputs, other = (self._inputs([noise(size)]) for size in (FIRST_SIZE, OTHER_SIZE))
            shape = tuple(inputs["pixel_values"].shape)
            self.one_grid = kind_of_input(inputs, 0) == kind_of_input(other, 0)
            if self.path:
                let_go(self.module, self.path, lambda: self._through(inputs))
            found = self._hidden_states(inputs)
        except InterpLabError:
            raise
        except Exception as error:  # third-party code: any type at all
            if is_out_of_memory(error):
                raise
            given = (
                "fails" if shape is None else f"gives {shape}, with which the tower does not run"
            )
            raise UnsupportedModelError(
                f"{self.name}: the image processor {given}; mend preprocessor_config.json or give "
                f"model.processor_options. Cause: {first_line(error)}"
            ) from error
        self.n_layers = len(found) - 1
        # Where the tower is a part, its paths are the larger model's.
        before = f"{self.path}." if self.path else ""
        self.hookpoints = {name: before + path for name, path in found.items()}
        placed = self.placed(inputs, 0, FIRST_SIZE)
        tokens = token_map(placed, self.registers, self.name)
        self.has_cls = bool(tokens.where(role="cls"))

    def _hidden_states(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        """Return the hidden states' paths in the tower, which are the model's own if it has any."""
        layers = layers_of(self.network, self.name)
        run = partial(self._through, inputs)
        with torch.inference_mode():
            found = hidden_states(self.network, layers, run, self.name, self.checks)
            if self.checks:
                with outputs_at(self.network, tuple(found.values())) as kept:
                    output = self._through(inputs, output_hidden_states=True)
                refuse_other_numbering(
                    [kept[path] for path in found.values()],
                    getattr(output, "hidden_states", None),
                    getattr(output, "last_hidden_state", None),
                    self.name,
                )
        return found

    def _measured(self, size: tuple[int, int]) -> Placed:
        def embed(inputs: Mapping[str, Any]) -> torch.Tensor:
            first = self.hookpoints["hidden.1"]
            called = inputs_of(self.module.get_submodule(first), partial(self._through, inputs))
            return self._one(first_tensor(*called))

        def last(inputs: Mapping[str, Any]) -> torch.Tensor:
            path = self.hookpoints[f"hidden.{self.n_layers}"]
            with position_wise(self.module), outputs_at(self.module, (path,)) as kept:
                self._through(inputs)
            return self._one(kept[path])

        def process(image: Image.Image) -> dict[str, Any]:
            return self._inputs([image])

        placed = place(process, embed, size, self.name)
        if self.checks and len(self._places) < CHECKED:
            middle = Image.new("RGB", size, (120, 120, 120))
            check(placed, process(middle), last, self.name)
        return placed

    def _one(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (positions, d_model) of one picture.

        Raises:
            UnsupportedModelError: if the tower runs it as several.
        """
        if hidden.dim() == 3 and len(hidden) == 1:
            return hidden[0]
        if hidden.dim() == 2:
            return hidden
        raise UnsupportedModelError(
            f"{self.name}: its tower runs one picture as {tuple(hidden.shape)}, so it is cut into "
            "parts or its tokens lie on a plane; model.processor_options may switch cutting off "
            "(do_image_splitting, crop_to_patches), else take another tower"
        )

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Return the tower's inputs: what the processor gives and the network takes."""
        batch = processed(self.processor, images, self.name)
        takes = inspect.signature(self._entry).parameters
        dtype = inputs_dtype(self.module)
        return {
            key: value.to(self.device, dtype)
            if value.is_floating_point()
            else value.to(self.device)
            for key, value in batch.items()
            if isinstance(value, torch.Tensor) and key in takes
        }

    @property
    def _entry(self) -> Callable[..., Any]:
        if not self.path:
            return self.module.forward
        return getattr(self.module, "get_image_features", self.network.forward)

    def _through(self, inputs: Mapping[str, Any], **options: Any) -> Any:
        """Run the tower and return its output."""
        if self._entry == self.network.forward:
            return self.network(**inputs, **options)
        kept: list[Any] = []
        handle = self.network.register_forward_hook(lambda _, __, output: kept.append(output))
        try:
            self.module.get_image_features(**inputs)
        finally:
            handle.remove()
        return kept[0]
