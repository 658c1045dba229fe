"""Does a head that looks at the image matter for the answer? Its view is blocked, and one looks.

The attention from every token outside the image to the image is blocked before the softmax in the
chosen heads, the question is answered again, and accuracy and the answer's logit difference are
compared with as many random heads of the same layers.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from interp_lab.capture.plans import LONGEST_ANSWER, BlockAttention, Intervention
from interp_lab.errors import ConfigError
from interp_lab.fields import Field, Scalar
from interp_lab.tokens import TokenMap

Heads = list[tuple[int, int]]
CONDITIONS = ("baseline", "winners", "random")


class Knockout:
    """Chooses heads and measures answers.

    Args:
        choice: `winners`: the winning heads of the layers in which they score highest; `random`:
            only the random heads; or named (layer, head) pairs in place of the winners.
        count: winning heads that are blocked.
        seed: of the random heads.
    """

    def __init__(self, choice: Literal["winners", "random"] | Heads, count: int, seed: int) -> None:
        self.choice = choice
        self.count = count
        self.seed = seed
        self.conditions = ("baseline", "random") if choice == "random" else CONDITIONS
        self.fields: Sequence[Field] = [
            Scalar(f"knockout_{condition}_{measure}", about, definition=f"scienceqa.{measure}/1")
            for condition in self.conditions
            for measure, about in (
                ("correct", f"answered correctly, {condition}"),
                ("logit_difference", f"right letter's logit minus the best other's, {condition}"),
            )
        ]

    def heads(self, sample_id: str, scores: np.ndarray, winners: np.ndarray) -> dict[str, Heads]:
        """Return the heads to block, by condition.

        Args:
            sample_id: makes the random heads differ from sample to sample, reproducibly.
            scores: (layer, head).
            winners: (layer,).

        Raises:
            ConfigError: if a named head is not there, or a layer has no other head to compare with.
        """
        n_layers, n_heads = scores.shape
        if isinstance(self.choice, list):
            chosen = [(int(layer), int(head)) for layer, head in self.choice]
            for layer, head in chosen:
                if not (0 <= layer < n_layers and 0 <= head < n_heads):
                    raise ConfigError(
                        f"analysis.knockout: no head [{layer}, {head}]; the model has {n_layers} "
                        f"layers of {n_heads} heads"
                    )
        else:
            best = scores[np.arange(n_layers), winners]
            layers = np.argsort(-best, kind="stable")[: self.count]
            chosen = [(int(layer), int(winners[layer])) for layer in layers]
        rng = np.random.default_rng([self.seed, zlib.crc32(sample_id.encode())])
        control = _others(chosen, n_heads, rng)
        return (
            {"random": control}
            if self.choice == "random"
            else {
                "winners": chosen,
                "random": control,
            }
        )

    def values(
        self,
        answer: str | None,
        letters: Sequence[str],
        tokens: Mapping[str, int],
        outputs: Mapping[str, Any],
        predicted: Mapping[str, str | None],
    ) -> dict[str, float]:
        """Return correctness and logit difference under each condition.

        Args:
            answer: the right letter, or None if the data does not say (then all values are 0).
            letters: the options' letters.
            tokens: letter -> its token id.
            outputs: condition -> `Answer`; `plain` is the baseline.
            predicted: condition -> the letter that was answered, or None.
        """
        values = {}
        for condition in self.conditions:
            name = "plain" if condition == "baseline" else condition
            # A sample without an image has nothing to block: its answer is the baseline's.
            output = outputs.get(name, outputs["plain"])
            said = predicted.get(name, predicted["plain"])
            right = answer in tokens and said == answer
            values[f"knockout_{condition}_correct"] = float(right)
            values[f"knockout_{condition}_logit_difference"] = logit_difference(
                output.first_logits, answer, letters, tokens
            )
        return values


def logit_difference(
    logits: Any, answer: str | None, letters: Sequence[str], tokens: Mapping[str, int]
) -> float:
    """Return the right letter's logit minus the largest of the other letters', 0 if unknown."""
    others = [float(logits[tokens[letter]]) for letter in letters if letter != answer]
    if answer is None or answer not in tokens or not others:
        return 0.0
    return float(logits[tokens[answer]]) - max(others)


def image_block(tokens: TokenMap, heads: Heads) -> tuple[Intervention, ...]:
    """Return the interventions that hide the image from heads, also while the answer is written."""
    image = tokens.where(modality="image")
    after = tuple(range(image[-1] + 1, len(tokens) + LONGEST_ANSWER))
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    return tuple(
        BlockAttention(after, image, layers=(layer,), heads=tuple(sorted(set(found))))
        for layer, found in sorted(by_layer.items())
    )


def _others(chosen: Heads, n_heads: int, rng: np.random.Generator) -> Heads:
    """Return as many other heads of the same layers."""
    control: Heads = []
    taken = set(chosen)
    for layer, _ in chosen:
        free = [h for h in range(n_heads) if (layer, h) not in taken]
        if not free:
            raise ConfigError(f"analysis.knockout: layer {layer} has no other head to compare with")
        head = int(rng.choice(free))
        taken.add((layer, head))
        control.append((layer, head))
    return control
