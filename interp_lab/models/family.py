"""What families of models share: their options, and the way from a checkpoint to a network.

A family is a class on one of the two here. It states what is its own: the networks, defaults,
options that others do not have, and how a prompt becomes tokens. Options are the fields of a
dataclass, so a family's signature, which is the schema of its YAML, shows all of them flat.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import get_annotations
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor
from typing_extensions import dataclass_transform  # typing has it from Python 3.11 on

from interp_lab.datasets.base import Sample
from interp_lab.datasets.conversations import CHAT_TEMPLATE
from interp_lab.datasets.points import Coordinates
from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.base import Prepared, as_picture
from interp_lab.models.language import LanguageModel, chat, chat_prompt
from interp_lab.models.loading import (
    load_module,
    loading_notes,
    random_network,
    without_memory,
)
from interp_lab.models.patches import box_seen, share_seen
from interp_lab.models.placing.checking import cell_boxes, check_once
from interp_lab.models.quantization import Quantization
from interp_lab.models.tokenmaps import Span
from interp_lab.models.unhandled import refuse_unhandled
from interp_lab.models.weights import Weights
from interp_lab.tokens import TokenMap, View

# Where a field says the type of its option, if the attribute becomes something else.
TYPE = "type of the option"
# What a part of a prompt is called in messages.
PARTS = {"text": "text", "image": "images", "audio": "audio"}


@dataclass_transform(eq_default=False, field_specifiers=(field,))
@dataclass(eq=False, repr=False)
class Family:
    """The options of a model that comes from a checkpoint.

    A subclass is made a dataclass when it is defined: an annotated attribute is a new option, and
    a plain attribute with the name of an option is that option's default in this family, and an
    option that is made a `field(default=..., init=False)` is one that this family does not have.

    Args:
        checkpoint, revision, dtype, init, trust_remote_code, architecture: see `Weights`.
        device: where the model goes without a device_map.
        device_map: accelerate's placement over several devices, the CPU and the disk: auto,
            balanced, balanced_low_0, sequential, or module path -> device; null = `device`.
        max_memory: card's number or cpu -> what `auto` and the like may use, such as 10GiB.
        offload_folder: where weights for which there is no memory wait on the disk.
        quantization: packs weights while they are loaded: {method: bitsandbytes, bits: 4} or
            {method: torchao, kind: int8_weight_only}; see `models.quantization`. A checkpoint
            that comes quantised is loaded as it is, without it.
        adapter: folder or hub id of a PEFT adapter for the weights; one that lies beside them is
            put on them without it.
        adapter_revision: of its hub id.
        merge_adapter: add what the adapter changes to the weights, once; false computes it beside
            them at each forward.
        seed: of random weights, and of sampling.

    Attributes:
        handled: keys of a configuration that this family takes care of itself, beside those that
            the network's configuration class declares; see `unhandled.refuse_unhandled`.
    """

    handled: ClassVar[Mapping[str, Any]] = {}

    checkpoint: str
    device: torch.device
    revision: str | None = None
    dtype: str = "float32"
    init: str = "pretrained"
    trust_remote_code: bool = False
    architecture: dict[str, Any] | None = None
    seed: int = 0
    device_map: str | dict[str, Any] | None = None
    max_memory: dict[int | str, int | str] | None = None
    offload_folder: str | None = None
    quantization: Quantization | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    merge_adapter: bool = True

    def __init_subclass__(cls) -> None:
        """Make the subclass a dataclass, its plain attributes the new defaults of options."""
        own = get_annotations(cls)
        for option in fields(cls):
            if option.name in cls.__dict__ and option.name not in own:
                own[option.name] = option.type
        cls.__annotations__ = own
        dataclass(eq=False, repr=False)(cls)
        types = cls.__init__.__annotations__
        types |= {f.name: f.metadata[TYPE] for f in fields(cls) if f.init and TYPE in f.metadata}

    def weights(self) -> Weights:
        """Return where the weights come from, its values checked."""
        return Weights(
            self.checkpoint,
            self.revision,
            self.dtype,
            self.init,
            self.trust_remote_code,
            self.architecture or {},
            self.device_map,
            self.max_memory,
            self.offload_folder,
            self.quantization,
            self.adapter,
            self.adapter_revision,
            self.merge_adapter,
        )


class LanguageFamily(Family, LanguageModel):
    """A family of models that write, on a device.

    Args:
        processor: with `init: random`, the checkpoint or folder that the processor comes from (its
            files are small); null = `checkpoint`. The attribute is what prepares inputs.
        attn_implementation: sdpa, flash_attention_2, eager, or another that transformers has.
        max_new_tokens, temperature: see `LanguageModel`.
        coordinates: in which unit the model writes places in a picture: thousandths of it, pixels
            of it as the model gets it (`Seen.sizes`), or shares; null = what the family's released
            checkpoints write. The attribute is the unit, None if it is not known.
        The other options are those of `Family`. A folder of fine-tuned weights loads like a hub
            id. `architecture` holds the configuration's values, with its `model_type` where a
            family has several networks.

    Attributes:
        title: what messages call the family.
        networks: transformers classes; of several, a configuration's model_type says which.
        other_parts: prefixes of weights that a checkpoint may hold for parts that are not used.
        reads: kinds of parts that a prompt may have.
        lacks: see `LoadedModel`.
        conversations: names of the formats in which it can be asked.
        writes: model_type -> the unit in which its released checkpoints write places.
    """

    title: ClassVar[str] = ""
    networks: ClassVar[tuple[Any, ...]] = ()
    other_parts: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ("text", "image")
    lacks: ClassVar[tuple[str, ...]] = ("gates", "hidden states")
    conversations: ClassVar[tuple[str, ...]] = (CHAT_TEMPLATE,)
    writes: ClassVar[Mapping[str, Coordinates]] = {}

    processor: Any = field(default=None, metadata={TYPE: str | None})
    attn_implementation: str = "sdpa"
    max_new_tokens: int = 16
    temperature: float = 0.0
    coordinates: Coordinates | None = None

    def __post_init__(self) -> None:
        """Make the network and what prepares its inputs."""
        weights = self.weights()
        config = self.configuration(weights)
        self.coordinates = self.coordinates or self.writes.get(config.model_type)
        random = weights.init == "random"
        module = self.random(weights, config) if random else self.pretrained(weights, config)
        # Of another checkpoint the revision and the adapter say nothing.
        named = Weights(
            self.processor or self.checkpoint, None, trust_remote_code=weights.trust_remote_code
        )
        source = named if random else weights
        handler = self.handler(source, module.config)
        LanguageModel.__init__(
            self,
            module,
            handler,
            weights.placement.entrance(self.device),
            self.max_new_tokens,
            self.temperature,
            loading_notes(weights, module, self.attn_implementation),
            self.seed,
        )

    @classmethod
    def skeleton(cls, weights: Weights, values: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model that a YAML describes, without memory for its weights."""
        config = cls.configuration(weights)
        return without_memory(cls.network(config.model_type, weights), config, weights)

    @classmethod
    def configuration(cls, weights: Weights) -> Any:
        """Return the network's configuration, of the checkpoint or of the YAML's architecture.

        Raises:
            UnsupportedModelError: if it is of another family, or says what is not computed here.
        """
        if weights.init == "random":
            values = weights.needed_architecture()
            network = cls.network(values.get("model_type"), weights)
            config = cls.of_values(network.config_class, values)
        else:
            config = cls.read_configuration(weights)
            cls.network(config.model_type, weights)
        refuse_unhandled(config, f"model.checkpoint={weights.checkpoint}", cls.handled)
        return config

    @classmethod
    def read_configuration(cls, weights: Weights) -> Any:
        """Return a checkpoint's configuration, not checked."""
        only = cls.networks[0] if len(cls.networks) == 1 else None
        reader = getattr(only, "config_class", None) or AutoConfig
        return weights.load(reader.from_pretrained, "configuration")

    @classmethod
    def of_values(cls, config_class: Any, values: Mapping[str, Any]) -> Any:
        """Return the configuration of an architecture's values."""
        return config_class(**values)

    @classmethod
    def network(cls, kind: str | None, weights: Weights) -> Any:
        """Return the class of a model_type's network; a family with one network has only that.

        Raises:
            UnsupportedModelError: if the family has several and none of this model_type.
        """
        if len(cls.networks) == 1:
            return cls.networks[0]
        kinds = {network.config_class.model_type: network for network in cls.networks}
        if kind not in kinds:
            raise UnsupportedModelError(
                f"model.checkpoint={weights.checkpoint}: its model_type is {kind!r}; this model's "
                f"YAML is for {' and '.join(kinds)}"
            )
        return kinds[kind]

    def random(self, weights: Weights, config: Any) -> Any:
        """Return the network with random weights of the seed, on the device."""
        network = self.network(config.model_type, weights)
        return random_network(
            network, config, weights, self.device, self.attn_implementation, self.seed
        )

    def pretrained(self, weights: Weights, config: Any) -> Any:
        """Return the network with the checkpoint's weights, where they belong."""
        return load_module(
            self.network(config.model_type, weights),
            weights,
            self.device,
            self.attn_implementation,
            self.other_parts,
        )

    def handler(self, source: Weights, config: Any) -> Any:
        """Return what prepares inputs: a processor with a tokenizer, or a tokenizer.

        Args:
            source: where it comes from.
            config: of the network.
        """
        return source.load(AutoProcessor.from_pretrained, "processor")

    def part(self, kind: str, value: Any) -> dict[str, Any]:
        """Return a part of a prompt as the checkpoint's chat template reads it."""
        return {"type": "text", "text": value} if kind == "text" else {"type": kind}

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, its system prompt included.

        Raises:
            SampleError: if the sample holds a kind of part that the family does not read, or see
                `chat`.
        """
        kinds = {kind for kind, _ in sample.parts}
        if kinds - set(self.reads):
            known = " and ".join(PARTS[kind] for kind in self.reads)
            raise SampleError(f"{sample.id}: {self.title} takes {known}, got {sorted(kinds)}")

        def rendered(texts: Sequence[str]) -> str:
            left = iter(texts)
            content = [
                self.part(kind, next(left) if kind == "text" else value)
                for kind, value in sample.parts
            ]
            return chat_prompt(self.processor, content, sample.system)

        return chat(sample, rendered)

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return one batch, padded on the left; the first one's map is checked on the model.

        Of random weights no number means anything, and no map is checked.

        Raises:
            SampleError: as of `LanguageModel.prepare`.
            UnsupportedModelError: if image tokens are not where the map has them.
        """
        prepared = super().prepare(samples)
        if self.init == "random":
            return prepared
        for sample, seen in zip(samples, prepared.seen, strict=True):
            if sample.images and seen.tokens.placed:
                check_once(self, sample, seen.tokens, self._check_key())
                break
        return prepared

    def _check_key(self) -> str:
        """Return a text that is another's where the map could be: the model and its processor."""
        handler = getattr(self.processor, "image_processor", None)
        told = handler.to_dict() if handler is not None and hasattr(handler, "to_dict") else {}
        weights = (self.checkpoint, self.revision, self.init, self.seed, self.dtype)
        parts = [type(self).__name__, *weights, self.module.config.to_dict(), told]
        return json.dumps([*parts, str(self.device)], default=str, sort_keys=True)

    def token_boxes(self, sample: Sample, tokens: TokenMap) -> np.ndarray:
        """Return where every image token is, (token, 4) in shares of its picture; NaN: nowhere."""
        handler = getattr(self.processor, "image_processor", None)
        boxes = [box_seen(handler, *image.size) for image in sample.images]
        own = tuple(View(i, box) for i, box in enumerate(boxes))
        return cell_boxes(tokens, tokens.views or own)

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return the crops that the tower saw: the processor cuts off what is not square."""
        if not sample.images:
            return ()
        handler = self.processor.image_processor
        own = batch["pixel_values"][first : first + len(sample.images)]
        return tuple(as_picture(p, handler.image_mean, handler.image_std) for p in own)

    def shares(self, sample: Sample) -> tuple[float, ...]:
        """Return the share of each picture's area that is left of it when it is cropped."""
        handler = getattr(self.processor, "image_processor", None)
        # Tiles of another size than the picture's: what they leave out is not worked out here.
        if handler is None or getattr(handler, "image_grid_pinpoints", None):
            return ()
        # Padded to a square first, nothing is cut off.
        whole = bool(getattr(handler, "do_pad", False))
        return tuple(1.0 if whole else share_seen(handler, *i.size) for i in sample.images)
