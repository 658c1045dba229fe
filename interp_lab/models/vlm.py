"""Any image-text-to-text model of transformers, by its id: `model=vlm model.checkpoint=ID`.

No family is known here. The prompt is the checkpoint's chat template, what the processor puts into
it is found by aligning ids, and which token stands for which place of a picture is measured on the
model (`models.placing`). What cannot be placed is said, and gets no cell.
"""

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from interp_lab.datasets.base import Sample
from interp_lab.datasets.conversations import CHAT_TEMPLATE, CONVERSATIONS
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.family import LanguageFamily
from interp_lab.models.language import chat_prompt
from interp_lab.models.llava import option_spans
from interp_lab.models.loading import refuse_not_finite
from interp_lab.models.placing.expansion import aligned
from interp_lab.models.placing.grids import Grid, grids_of
from interp_lab.models.placing.pictures import (
    MIXING,
    OVERLAPPING,
    PLACED,
    PicturePlacer,
    Places,
    image_token_of,
)
from interp_lab.models.placing.shown import shown
from interp_lab.models.spelling import check_spelling
from interp_lab.models.tokenmaps import Span, prompt_pieces, text_token
from interp_lab.models.weights import Weights
from interp_lab.tokens import Token, TokenMap

log = logging.getLogger(__name__)
# So many sets of picture sizes keep their tokens.
KNOWN = 64
# Of a picture that stands for all when a model is loaded.
PROBE = (640, 480)
NO_TEMPLATE = "the checkpoint has no chat template: prompts are the pictures and then the text"


class VisionLanguageModel(LanguageFamily):
    """An image-text-to-text model on a device.

    Args:
        processor_options: what the processor is called with besides, such as `do_pan_and_scan` or
            `max_pixels`; null = what the checkpoint says.

    The other options are those of `LanguageFamily`; `architecture` names its `model_type`.
    """

    title = "this model"
    networks = (AutoModelForImageTextToText,)
    conversations = (CHAT_TEMPLATE, *CONVERSATIONS)
    dtype = "bfloat16"
    max_new_tokens = 64

    processor_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Load the model, and measure where the tokens of a picture stand."""
        super().__post_init__()
        refuse_not_finite(self.module, f"model.checkpoint={self.checkpoint}")
        self.placer = PicturePlacer(self.module, self._processed_alone, self._options_now)
        self._known: OrderedDict[Any, tuple[tuple[Token, ...], tuple[Grid, ...]]] = OrderedDict()
        self._warned = False
        if self.coordinates == "pixels" and not self._knows_pixels:
            raise ConfigError(
                "model.coordinates=pixels: how many pixels a picture has for this model is not "
                "known; give thousandths or shares"
            )
        if self._template is None:
            self.notes.append(NO_TEMPLATE)
        self.notes += notes_on(self.placer.places([PROBE]))

    @classmethod
    def network(cls, kind: str | None, weights: Weights) -> Any:
        """Return the class of a model_type's network.

        Raises:
            UnsupportedModelError: if transformers has no image-text-to-text network of that type.
        """
        mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        for config_class in mapping:
            if config_class.model_type == kind:
                return mapping[config_class]
        raise UnsupportedModelError(
            f"model.checkpoint={weights.checkpoint}: its model_type is {kind!r}, and the installed "
            "transformers has no image-text-to-text model of that type; take another model=, or a "
            "newer transformers"
        )

    @classmethod
    def read_configuration(cls, weights: Weights) -> Any:
        """Return a checkpoint's configuration, not checked."""
        from transformers import AutoConfig

        return weights.load(AutoConfig.from_pretrained, "configuration")

    @classmethod
    def of_values(cls, config_class: Any, values: Mapping[str, Any]) -> Any:
        """Return the configuration of an architecture's values."""
        return config_class(**{k: v for k, v in values.items() if k != "model_type"})

    def random(self, weights: Weights, config: Any) -> Any:
        """Return the network with random weights of the seed, none of them all zero.

        Some families start a projection at zero, and pictures would reach nothing.
        """
        module = super().random(weights, config)
        draw = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for weight in module.parameters():
                if weight.dim() > 1 and not weight.any():
                    weight.copy_(0.02 * torch.randn(weight.shape, generator=draw))
        return module

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt of the checkpoint's chat template, or of the sample's `conv_mode`.

        Raises:
            SampleError: if the sample holds anything but text and pictures, or as `chat` does.
        """
        mode = sample.facts.get("conv_mode", CHAT_TEMPLATE)
        if mode == CHAT_TEMPLATE and self._template is not None:
            prompt, spans = super().render(sample)
        else:
            prompt, spans = self._in_format("plain" if mode == CHAT_TEMPLATE else mode, sample)
        said = next((s for s in spans if s.role == "user"), None)
        options = option_spans(prompt, said, sample.facts.get("options", {})) if said else []
        return prompt, [*options, *spans]

    def _in_format(self, mode: str, sample: Sample) -> tuple[str, list[Span]]:
        if self._template is not None and not self._warned:
            self._warned = True
            log.warning(
                "prompts are in the format %s and not in the checkpoint's chat template "
                "(dataset.conv_mode=chat_template); is it the one that it was trained with?",
                mode,
            )
        if sample.system is not None:
            raise SampleError(f"{sample.id}: a system part, and the format {mode} has no place")
        texts = [value for kind, value in sample.parts if kind == "text"]
        text = "\n".join(texts)
        places = self.placeholder * sum(kind == "image" for kind, _ in sample.parts)
        prompt, start = CONVERSATIONS[mode].prompt(text, places)
        said = Span(start, start + len(text), "user")
        around = [Span(0, start, "system"), Span(said.end, len(prompt), "assistant")]
        return prompt, [said, *around]

    def handler(self, source: Weights, config: Any) -> Any:
        """Return the processor; a chat template that its tokenizer alone has is its own too."""
        handler = super().handler(source, config)
        own = getattr(getattr(handler, "tokenizer", None), "chat_template", None)
        if own and getattr(handler, "chat_template", None) is None:
            handler.chat_template = own
        return handler

    @property
    def _template(self) -> str | None:
        return getattr(self.processor, "chat_template", None)

    @cached_property
    def placeholder(self) -> str:
        """What a prompt holds where a picture goes."""
        if self._template is None:
            token = getattr(self.processor, "image_token", None)
            own = self.tokenizer.convert_ids_to_tokens(image_token_of(self.module))
            return str(getattr(token, "content", token) or own)
        text = [{"type": "text", "text": "x"}]
        without = chat_prompt(self.processor, text)
        prompt = chat_prompt(self.processor, [{"type": "image"}, *text])
        start = next(
            (i for i, (a, b) in enumerate(zip(prompt, without, strict=False)) if a != b), 0
        )
        return prompt[start : start + len(prompt) - len(without)].strip()

    def processed(self, prompts: Sequence[str], samples: Sequence[Sample]) -> Any:
        """Return what the processor makes of prompts and pictures, one batch.

        Raises:
            SampleError: if it cannot take the samples together.
        """
        nested = [list(s.images) for s in samples]
        flat = [image for images in nested for image in images]
        # Whether a sample's pictures stand in a list of their own is each processor's choice.
        ways = [{"images": nested}, {"images": flat}] if flat else [{}]
        told = self._bos_told(prompts)
        problem: Exception | None = None
        for way in ways:
            try:
                return self.processor(
                    text=list(prompts),
                    padding=True,
                    return_tensors="pt",
                    **way,
                    **told,
                    **(self.processor_options or {}),
                )
            except (ValueError, TypeError, IndexError, AttributeError) as error:
                problem = problem or error
        what = f"{len(samples)} samples with {len(flat)} pictures together; give batch_size=1"
        what = what if len(samples) > 1 else f"a prompt with {len(flat)} pictures"
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise SampleError(
            f"{samples[0].id}: {type(self.processor).__name__} does not take {what}. Cause: {said}"
        )

    def _bos_told(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return the option that keeps the mark of the beginning from being put in twice."""
        mark = self.tokenizer.bos_token
        own = bool(mark) and all(prompt.startswith(mark) for prompt in prompts)
        return {"add_special_tokens": False} if own else {}

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return the map; the cells of image tokens are measured."""
        token = image_token_of(self.module)
        at = [i for i, own in enumerate(ids) if own == token]
        found = self._image_tokens(sample)
        if len(at) != len(found[0]):
            raise SampleError(
                f"{sample.id}: {len(at)} image tokens in the prompt, {len(found[0])} expected of "
                "its pictures; give batch_size=1, and no image marks in the text"
            )
        pieces = list(prompt_pieces(self.tokenizer, prompt, **self._bos_told([prompt])))
        special = frozenset(self.tokenizer.all_special_ids)
        marks = special | set(self.tokenizer.get_added_vocab().values())
        tokens: list[Token] = []
        images = iter(found[0])
        places = aligned(prompt, pieces, ids, token, marks, self._surface)
        for own, chars in zip(ids, places, strict=True):
            if own == token:
                tokens.append(next(images))
            elif chars is None:
                tokens.append(Token(self._name_of(own), "special", "none"))
            else:
                args = (self.tokenizer, prompt, own, chars, spans, "user", special)
                tokens.append(text_token(*args))
        check_spelling(self.tokenizer, prompt, ids, [t.chars for t in tokens], spans)
        shapes = tuple((g.rows, g.cols) for g in found[1])
        return TokenMap(tuple(tokens), shapes, prompt, tuple(g.view for g in found[1]))

    def _surface(self, token: int) -> str:
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def _name_of(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))

    def _image_tokens(self, sample: Sample) -> tuple[tuple[Token, ...], tuple[Grid, ...]]:
        """Return the image tokens of a sample, and the grids that they form."""
        if not sample.images:
            return (), ()
        sizes = [image.size for image in sample.images]
        key = (tuple(sizes), self._options_now())
        if key not in self._known:
            self._known[key] = self._made_tokens(self.placer.places(sizes))
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return self._known[key]

    @staticmethod
    def _made_tokens(places: Places) -> tuple[tuple[Token, ...], tuple[Grid, ...]]:
        grids = grids_of(places)
        cells = {
            token: (image, divmod(i, grid.cols))
            for image, grid in enumerate(grids)
            for i, token in enumerate(grid.tokens)
        }
        tokens = []
        for i, verdict in enumerate(places.verdicts):
            image, cell = cells.get(i, (None, None))
            label = None if verdict == PLACED else verdict
            tokens.append(Token("<image>", "image", "image", image=image, cell=cell, label=label))
        return tuple(tokens), tuple(grids)

    def token_boxes(self, sample: Sample, tokens: TokenMap) -> np.ndarray:
        """Return the cells; of overlapping tokens what they were measured to be made of."""
        boxes = super().token_boxes(sample, tokens)
        places = self.placer.places([image.size for image in sample.images])
        wide = np.array([v == OVERLAPPING for v in places.verdicts])
        boxes[wide] = np.where(np.isnan(boxes[wide]), np.nan, places.boxes[wide])
        return boxes

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return what each grid lies on: the part of the picture, and padding where there is."""
        views = [g.view for g in self._image_tokens(sample)[1]]
        return tuple(shown(sample.images[v.picture], v.box) for v in views)

    def sizes(
        self, pictures: Sequence[np.ndarray], batch: Mapping[str, Any], first: int
    ) -> tuple[tuple[int, int], ...]:
        """Return the sizes after scaling, where the processor says them, picture by picture."""
        patch = getattr(getattr(self.processor, "image_processor", None), "patch_size", None)
        grids = batch.get("image_grid_thw")
        if grids is None or not isinstance(patch, int):
            return ()
        return tuple((int(w) * patch, int(h) * patch) for _, h, w in grids[first:])

    def shares(self, sample: Sample) -> tuple[float, ...]:
        """Return the share of its picture's area that each grid shows."""
        boxes = [g.view.box for g in self._image_tokens(sample)[1]]
        clipped = [[min(1.0, max(0.0, v)) for v in box] for box in boxes]
        return tuple((b[2] - b[0]) * (b[3] - b[1]) for b in clipped)

    @property
    def _knows_pixels(self) -> bool:
        return "image_grid_thw" in getattr(self.processor, "model_input_names", ())

    def _processed_alone(self, pictures: Sequence[Image.Image]) -> Mapping[str, Any]:
        """Return what the processor makes of pictures and a word, of one row."""
        parts = (*(("image", i) for i in range(len(pictures))), ("text", "x"))
        sample = Sample("a picture to measure with", parts, tuple(pictures))
        return self.processed([self.render(sample)[0]], [sample])

    def _check_key(self) -> str:
        return f"{super()._check_key()} {json.dumps(self.processor_options, default=str)}"

    def _options_now(self) -> str:
        handler = getattr(self.processor, "image_processor", None)
        told = handler.to_dict() if handler is not None and hasattr(handler, "to_dict") else {}
        return json.dumps([told, self.processor_options], default=str, sort_keys=True)


def notes_on(places: Places) -> list[str]:
    """Return what a reader must know of how tokens stand for places; nothing if each has one."""
    n = len(places.verdicts)
    mixing, overlapping = (places.verdicts.count(v) for v in (MIXING, OVERLAPPING))
    notes = []
    if mixing:
        notes.append(
            f"{mixing} of {n} image tokens are each made of most of the picture and stand for no "
            "place of it: shares on the image hold, maps over the picture do not exist"
        )
    if overlapping:
        cells = sum(len(g.tokens) for g in grids_of(places))
        notes.append(
            f"{overlapping} of {n} image tokens are made of pixels that their neighbours are made "
            f"of too; {cells} have a cell, which is where most of each comes from"
        )
    return notes
