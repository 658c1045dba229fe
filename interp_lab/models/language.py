"""Models that write: prompt, batch on the left, generate, and say what every token is.

A family renders the prompt of a sample and builds its token map; everything else is the same for
all of them and stands here.
"""

import contextlib
import copy
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError, UnsupportedModelError
from interp_lab.models.ahead import Ahead, Encoded
from interp_lab.models.answers import Answer
from interp_lab.models.base import Prepared, Seen, sent
from interp_lab.models.loading import inputs_dtype, seeded
from interp_lab.models.pieces import pieces
from interp_lab.models.tokenmaps import Span
from interp_lab.tokens import TokenMap

log = logging.getLogger(__name__)
# Stands for a text part while its place in a chat template is learnt; of Unicode's private use.
MARK = "\ue000{}\ue001"


class FirstLogits(LogitsProcessor):
    """Keeps the logits of the first step of a generation and changes nothing."""

    def __init__(self) -> None:
        self.logits: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Take the scores (row, vocabulary) of a step."""
        if self.logits is None:
            self.logits = scores.detach().float().cpu()
        return scores


class LanguageModel:
    """A transformers model that continues a prompt, on its device.

    Args:
        module: the network, on its device and in its dtype.
        processor: of the checkpoint; has a tokenizer.
        device: where inputs go.
        max_new_tokens: tokens of an answer at most.
        temperature: 0 = greedy; above it, one sample a batch.
        notes: what a reader of the numbers must know.
        seed: of sampling.

    Attributes:
        n_layers: decoder layers.
        n_heads: query heads a layer.
        reading_tower: the tower whose tokens are the prompt's.
    """

    reading_tower = "language"

    def __init__(
        self,
        module: Any,
        processor: Any,
        device: torch.device,
        max_new_tokens: int,
        temperature: float,
        notes: list[str],
        seed: int = 0,
    ) -> None:
        if max_new_tokens < 1 or temperature < 0:
            raise ConfigError("model.max_new_tokens from 1 on, model.temperature from 0 on")
        self.module = module.eval().requires_grad_(False)
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        # A batch is padded on the left, so that every row's last token is where it writes on.
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.device = device
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.notes = notes
        self.seed = seed
        self.hookpoints: dict[str, str] = {}
        self._ahead = Ahead()
        self._reader: LanguageModel | None = None
        text = module.config.get_text_config()
        self.n_layers: int = text.num_hidden_layers
        self.n_heads: int = text.num_attention_heads
        self._longest = int(getattr(text, "max_position_embeddings", 0) or 0)

    def render(self, sample: Sample) -> tuple[str, list[Span]]:
        """Return the prompt with one placeholder an image or clip, and the roles of its parts."""
        raise NotImplementedError

    def token_map(
        self,
        prompt: str,
        ids: Sequence[int],
        spans: Sequence[Span],
        sample: Sample,
        batch: Mapping[str, Any],
        first: int,
    ) -> TokenMap:
        """Return what every token of the row is.

        Args:
            prompt, spans: as `render` gave them.
            ids: the row's token ids, padding left out.
            sample: the row's sample.
            batch: what the processor gave for the whole batch.
            first: the place of the sample's first picture among the batch's.
        """
        raise NotImplementedError

    def spectrogram(self, batch: Mapping[str, Any], row: int) -> np.ndarray | None:
        """Return a row's sound as the model gets it; None by default."""
        return None

    def pictures(
        self, sample: Sample, batch: Mapping[str, Any], first: int
    ) -> tuple[np.ndarray, ...]:
        """Return the sample's pictures as their token grids cover them; none by default.

        Args:
            first: the place of its first picture among the batch's.
        """
        return ()

    def sizes(
        self, pictures: Sequence[np.ndarray], batch: Mapping[str, Any], first: int
    ) -> tuple[tuple[int, int], ...]:
        """Return (width, height) that a sample's pictures have for the model, in pixels.

        Args:
            pictures: as `pictures` gave them.
            batch: what the processor gave for the whole batch.
            first: the place of the sample's first picture among the batch's.
        """
        return tuple((picture.shape[1], picture.shape[0]) for picture in pictures)

    def shares(self, sample: Sample) -> tuple[float, ...]:
        """Return the share of each picture's area that the model sees; none where not known."""
        return ()

    def processed(self, prompts: Sequence[str], samples: Sequence[Sample]) -> Any:
        """Return what the processor makes of prompts and their pictures and clips, one batch."""
        images = [image for s in samples for image in s.images]
        clips = [wave for s in samples for wave, _ in s.audio]
        return self.processor(
            text=list(prompts),
            padding=True,
            return_tensors="pt",
            **({"images": images} if images else {}),
            **({"audio": clips} if clips else {}),
        )

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return one batch, padded on the left.

        Raises:
            SampleError: if a prompt is longer than the model can read, or does not fit the model.
        """
        rendered, batch = self._ahead.take(samples) or self.encoded(samples)
        seen, first = [], 0
        for row, (sample, (prompt, spans)) in enumerate(zip(samples, rendered, strict=True)):
            own = batch["input_ids"][row][batch["attention_mask"][row].bool()]
            if self._longest and len(own) + self.max_new_tokens > self._longest:
                raise SampleError(
                    f"{sample.id}: {len(own)} tokens and {self.max_new_tokens} to write are more "
                    f"than the model's {self._longest}"
                )
            tokens = self.token_map(prompt, own.tolist(), spans, sample, batch, first)
            pictures = self.pictures(sample, batch, first)
            sizes = self.sizes(pictures, batch, first)
            sound, shares = self.spectrogram(batch, row), self.shares(sample)
            seen.append(Seen(tokens, pictures, sound, sizes, shares))
            first += len(sample.images)
        dtype = inputs_dtype(self.module)
        inputs = {
            key: sent(value, self.device, dtype)
            for key, value in batch.items()
            if isinstance(value, torch.Tensor)
        }
        return Prepared(inputs, tuple(seen))

    def encoded(self, samples: Sequence[Sample]) -> Encoded:
        """Return the prompts with their roles, and what the processor makes of the samples.

        Raises:
            SampleError: if a prompt does not fit the model.
        """
        for sample in samples:
            refuse_special(self.processor, self.tokenizer, sample)
        rendered = [self.render(s) for s in samples]
        batch = self.processed([prompt for prompt, _ in rendered], samples)
        return rendered, batch

    def encode_ahead(self, samples: Sequence[Sample]) -> None:
        """Do the processor's work on samples that `prepare` will be asked for, in another thread.

        A tokenizer is no thing for two threads, so this one has a copy of it. What the samples
        raise is left for `prepare` to raise, in their turn.
        """
        reader = self._reader or self._with_own_processor()
        if reader is None:
            return
        self._reader = reader
        with contextlib.suppress(Exception), torch.inference_mode():
            self._ahead.keep(samples, reader.encoded(samples))

    def _with_own_processor(self) -> "LanguageModel | None":
        """Return this model with a copy of its processor; None if that cannot be copied."""
        reader = copy.copy(self)
        try:
            reader.processor = copy.deepcopy(self.processor)
        except Exception as error:  # a class of others' may hold anything
            log.debug("%s cannot be copied: %s", type(self.processor).__name__, error)
            return None
        reader.tokenizer = getattr(reader.processor, "tokenizer", reader.processor)
        return reader

    def run(self, prepared: Prepared) -> list[Answer]:
        """Write on from each prompt.

        Raises:
            ConfigError: if several samples would share the random numbers of a temperature.
            UnsupportedModelError: if the model writes in a way of its own.
        """
        first = FirstLogits()
        sampling = (
            {"do_sample": True, "temperature": self.temperature}
            if self.temperature
            else {
                "do_sample": False,
                "temperature": None,
                "top_p": None,
                "top_k": None,
            }
        )
        with self._own_random_numbers(prepared.inputs["input_ids"]):
            sequences = self.module.generate(
                **prepared.inputs,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([first]),
                **sampling,
            )
        if first.logits is None:
            raise UnsupportedModelError(
                f"{type(self.module).__name__}: its own generate does not call logits processors, "
                "so the logits of its answer are not known; take another model"
            )
        new = self._written(prepared.inputs, sequences)
        return [self._answer(row, logits) for row, logits in zip(new, first.logits, strict=True)]

    def _written(self, inputs: Mapping[str, Any], sequences: torch.Tensor) -> torch.Tensor:
        """Return the tokens (row, step) that were written, of what `generate` returned."""
        return sequences[:, inputs["input_ids"].shape[1] :]

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the logits (row, 1, vocabulary) after each prompt, from one forward."""
        return self.module(**inputs, use_cache=False, logits_to_keep=1).logits

    def token_of(self, word: str) -> int:
        """Return the id of the token that the word is when it begins an answer.

        Raises:
            UnsupportedModelError: if the word is more than one token there.
        """
        before = self.tokenizer("ASSISTANT:", add_special_tokens=False)["input_ids"]
        both = self.tokenizer(f"ASSISTANT: {word}", add_special_tokens=False)["input_ids"]
        if len(both) != len(before) + 1:
            raise UnsupportedModelError(
                f"the answer {word!r} is {len(both) - len(before)} tokens of "
                f"{type(self.tokenizer).__name__}; logit differences need one"
            )
        return int(both[-1])

    def _answer(self, tokens: torch.Tensor, logits: torch.Tensor) -> Answer:
        ends = self.module.generation_config.eos_token_id
        ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
        ids = tokens.tolist()
        stop = next((i + 1 for i, token in enumerate(ids) if token in ends), None)
        own = tuple(ids[:stop])
        text = self.tokenizer.decode(own, skip_special_tokens=True)
        return Answer(text.strip(), own, logits, stop is not None, pieces(self.tokenizer, own))

    @contextmanager
    def _own_random_numbers(self, ids: torch.Tensor) -> Iterator[None]:
        """Let a sample's random numbers follow from the seed and its prompt alone.

        A run that is resumed or shared out then gives the numbers of one that is not.
        """
        if not self.temperature:
            yield
            return
        if len(ids) > 1:
            raise ConfigError(
                f"model.temperature={self.temperature} needs batch_size=1: what is drawn for one "
                "sample must not depend on the others of its batch"
            )
        digest = hashlib.sha256(f"{self.seed} {ids.tolist()}".encode()).digest()
        with seeded(int.from_bytes(digest[:8], "big") >> 1, ids.device):
            yield


def refuse_special(handler: Any, tokenizer: Any, sample: Sample) -> None:
    """Refuse a text that holds what the model reads as a picture, a sound or the end of a turn.

    Raises:
        SampleError: names the word.
    """
    named = [getattr(handler, f"{kind}_token", None) for kind in ("image", "video", "audio")]
    named += [tokenizer.bos_token, tokenizer.eos_token, "<|im_start|>", "<|im_end|>"]
    known = tokenizer.get_added_vocab()
    texts = [value for kind, value in sample.parts if kind == "text"] + [sample.system or ""]
    for word in dict.fromkeys(name for name in named if isinstance(name, str) and name in known):
        if any(word in text for text in texts):
            raise SampleError(
                f"{sample.id}: its text holds {word!r}, which this model does not read as text: it "
                "stands for a picture, a sound or the end of a turn; take it out of the record"
            )


def chat_prompt(
    handler: Any, content: str | list[dict[str, str]], system: str | None = None
) -> str:
    """Return a user's turn in the checkpoint's own chat format, the answer's turn begun.

    Args:
        handler: a processor or tokenizer with a chat template.
        content: the turn's text, or its parts.
        system: the system turn before it; None = the template's own, if it has one.
    """
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if system is not None:
        said = system if isinstance(content, str) else [{"type": "text", "text": system}]
        turns = [{"role": "system", "content": said}, *turns]
    prompt = handler.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return prompt[0] if isinstance(prompt, list) else prompt


def chat(sample: Sample, render: Callable[[Sequence[str]], str]) -> tuple[str, list[Span]]:
    """Return a chat prompt and its roles: the sample's own spans, user text, what is around it.

    Where the texts stand is learnt by rendering marks in their places, so nothing is searched for:
    a text that also stands in the system turn is not mistaken for it. A sample's `spans` fact
    counts characters within its text parts.

    Args:
        sample: its text parts are the texts.
        render: makes the prompt of texts, one for each text part.

    Raises:
        SampleError: if the chat template changes a text, or leaves the system turn out.
    """
    places = [i for i, (kind, _) in enumerate(sample.parts) if kind == "text"]
    texts = [sample.parts[i][1] for i in places]
    prompt = render(texts)
    marks = [MARK.format(i) for i in range(len(texts))]
    start_of, end, rest = {}, 0, render(marks)
    for place, mark, text in zip(places, marks, texts, strict=True):
        before, found, rest = rest.partition(mark)
        start_of[place] = end + len(before)
        end = start_of[place] + len(text)
        if not found or prompt[start_of[place] : end] != text:
            raise SampleError(
                f"{sample.id}: the model's chat template changes the text {text[:40]!r} of the "
                "prompt, so its words cannot be found; no blanks at its ends, or another model"
            )
    if len(prompt) != end + len(rest):
        raise SampleError(f"{sample.id}: the model's chat template changes the text of the prompt")
    first = start_of[places[0]] if places else len(prompt)
    if sample.system is not None and sample.system not in prompt[:first]:
        raise SampleError(
            f"{sample.id}: the prompt has a system part, and the model's chat template has no "
            "place for it; take another model, or a prompt without one"
        )
    own = [
        Span(start_of[s.part] + s.start, start_of[s.part] + s.end, s.role, s.label)
        for s in sample.facts.get("spans", ())
        if s.part in start_of
    ]
    user = [Span(start_of[i], start_of[i] + len(sample.parts[i][1]), "user") for i in places]
    around = [Span(0, first, "system"), Span(end, len(prompt), "assistant")]
    # Of spans that cover a token alike the first counts, so the narrow ones come first.
    return prompt, [*own, *user, *around]
