"""How a problem is asked: our sentence, or one that published checkpoints were trained with.

A prompt that a checkpoint was trained with is a fact, to the last blank: nothing of it is stripped,
and nothing of the problem in it.
"""

from interp_lab.errors import ConfigError, did_you_mean

INSTRUCTION = (
    "First write your reasoning between <think> and </think>, then the final answer between "
    "<answer> and </answer>."
)
PROBLEM = "{problem}"
PRODUCT = "product"
# Reason-RFT's own evaluation has one blank after the problem, VLMLocPredictor, a fork of it, two.
ASKS = (
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
)
PUBLISHED = {
    "reason_rft": f"{PROBLEM} {ASKS}",
    "vlmlocpredictor": f"{PROBLEM}  {ASKS}",
}


def prompt_of(prompt: str, instruction: str | None) -> tuple[str, str]:
    """Return a prompt's name and its text, which holds `{problem}` once.

    Args:
        prompt: product, the name of a published prompt, or a text of one's own with `{problem}`.
        instruction: what follows the problem on a line of its own in our prompt; empty for
            nothing, null for ours.

    Raises:
        ConfigError: if there is no such prompt, or it has a sentence of its own beside another.
    """
    if prompt == PRODUCT:
        own = INSTRUCTION if instruction is None else instruction
        return PRODUCT, f"{PROBLEM}\n{own}" if own else PROBLEM
    if prompt not in PUBLISHED and prompt.count(PROBLEM) != 1:
        names = [PRODUCT, *PUBLISHED]
        raise ConfigError(
            f"dataset.prompt={prompt!r:.80}: give {', '.join(names)}, or a text that holds "
            f"{PROBLEM} once.{did_you_mean(prompt, names)}"
        )
    if instruction not in (None, "", INSTRUCTION):
        raise ConfigError(
            f"dataset.instruction={instruction!r:.80}: dataset.prompt={prompt!r:.40} says all that "
            "is asked; give dataset.instruction=null, or a dataset.prompt of your own"
        )
    return (prompt, PUBLISHED[prompt]) if prompt in PUBLISHED else ("own", prompt)


def asked(name: str, text: str, problem: str) -> str:
    """Return what is asked of a problem; our own prompt takes its blanks off, no other does."""
    return text.replace(PROBLEM, problem.strip() if name == PRODUCT else problem, 1)
