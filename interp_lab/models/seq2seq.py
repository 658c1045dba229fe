"""Text encoder-decoders (T5, BART, ...): the encoder reads the prompt, the decoder answers."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from interp_lab.errors import UnsupportedModelError
from interp_lab.models.lacks import DECODER
from interp_lab.models.text import TextModel


class Seq2SeqModel(TextModel):
    """An encoder-decoder language model on a device.

    Its tokens are the prompt's, which the encoder reads: `self` attention is the encoder's, and the
    answer attends to the prompt by cross attention, whose first query row predicts the answer.

    The options are those of `TextModel`.
    """

    networks = (AutoModelForSeq2SeqLM,)
    title = "an encoder-decoder"
    reading_tower = "encoder"
    lacks = (*TextModel.lacks, DECODER)

    def __post_init__(self) -> None:
        """Make the network and its tokenizer; positions count from the left, so padding is right.

        Raises:
            UnsupportedModelError: if the network does not say how an answer begins.
        """
        super().__post_init__()
        self.tokenizer.padding_side = "right"
        config = self.module.config
        self.n_layers = int(getattr(config, "encoder_layers", config.num_hidden_layers))
        if self.module.generation_config.decoder_start_token_id is None:
            raise UnsupportedModelError(
                f"model.checkpoint={self.checkpoint}: its configuration has no "
                "decoder_start_token_id, with which an answer begins"
            )

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the logits (row, 1, vocabulary) of the answer's first token, from one forward."""
        start = self.module.generation_config.decoder_start_token_id
        ids = inputs["input_ids"].new_full((len(inputs["input_ids"]), 1), int(start))
        return self.module(**inputs, decoder_input_ids=ids, use_cache=False).logits

    def token_of(self, word: str) -> int:
        """Return the id of the token that the word is when it is a whole answer.

        Raises:
            UnsupportedModelError: if the word is more than one token there.
        """
        ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UnsupportedModelError(
                f"the answer {word!r} is {len(ids)} tokens of {type(self.tokenizer).__name__}; "
                "logit differences need one"
            )
        return int(ids[0])

    def _written(self, inputs: Mapping[str, Any], sequences: torch.Tensor) -> torch.Tensor:
        # What an encoder-decoder generates begins with its start token, not with the prompt.
        return sequences[:, 1:]
