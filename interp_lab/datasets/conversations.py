"""The formats of LLaVA's releases: what stands around a question, character by character.

A format that a model was trained on is a fact of that model, published under its name in LLaVA's
table of conversations (arXiv 2304.08485 and later). Here each is the text before and after what a
user says in the first turn, up to where the answer begins. The mark of the sequence's beginning is
the tokenizer's; the mark of its end follows an answer, so a question holds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

CHAT_TEMPLATE = "chat_template"
# What goes into a stated prompt where the model puts the picture.
IMAGE = "{image}"
OF_USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
OF_HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
OF_LLAMA = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
OF_MPT = (
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and "
    "honest answers."
)


@dataclass(frozen=True)
class Conversation:
    """One format.

    Args:
        before: what stands before the user's words, the system sentence included.
        after: what stands between them and the answer.
        tokens: which words of it a tokenizer must have as tokens of their own.
        stop: where an answer ends, if a model goes on with the next turn instead of ending.
    """

    before: str
    after: str
    tokens: tuple[str, ...] = ()
    stop: str = ""

    def prompt(self, text: str, image: str = "") -> tuple[str, int]:
        """Return the prompt and where the text begins in it.

        Args:
            text: the user's words.
            image: the placeholder of a picture; it stands on a line of its own before them.
        """
        before = f"{self.before}{image}\n" if image else self.before
        return f"{before}{text}{self.after}", len(before)


CONVERSATIONS: Mapping[str, Conversation] = {
    "vicuna_v1": Conversation(f"{OF_USER} USER: ", " ASSISTANT:"),
    "llava_v1": Conversation(f"{OF_HUMAN} USER: ", " ASSISTANT:"),
    "llava_v0": Conversation(f"{OF_HUMAN}###Human: ", "###Assistant:", stop="###"),
    "llava_llama_2": Conversation(f"[INST] <<SYS>>\n{OF_LLAMA}\n<</SYS>>\n\n", " [/INST]"),
    "mpt": Conversation(
        f"<|im_start|>system\n{OF_MPT}<|im_end|><|im_start|>user\n",
        "<|im_end|><|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "plain": Conversation("", "\n"),
}
# Second names in LLaVA's table.
CONVERSATIONS = {
    **CONVERSATIONS,
    "v1": CONVERSATIONS["vicuna_v1"],
    "v0_plain": CONVERSATIONS["plain"],
}
