"""The attention layers of a tower: which modules attend, and which of them form one stack.

A module attends if the code of its class looks its attention function up in transformers' registry;
what merely has "Attention" in its name may be a pooling head, a wrapper or an attention of its own.
One stack is what one pattern of a path with its numbers left open describes
(`decoder.layers.*.self_attn`). Layers of different stacks are never numbered together.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from interp_lab.errors import UnsupportedModelError
from interp_lab.libraries import huggingface

# What models call the attention whose keys are another sequence than its queries: `encoder_attn`,
# `EncDecAttention`, `crossattention`, `cross_attn_image`, `text_cross_attn`.
_CROSS = re.compile(r"cross|encoder_attn|enc_?dec_?att", re.IGNORECASE)
MaskOf = Literal["queries", "keys"] | None
_NUMBER = re.compile(r"^\d+$")


@dataclass(frozen=True)
class Site:
    """One attention layer of a tower.

    Attributes:
        module: the module that attends.
        tower: the tower's name as the plans have it.
        layer: its index.
        path: its dotted path in the model.
        registered: whether its attention goes through transformers' registry.
        cross: whether its keys are another sequence than its queries.
        padded: whether its tokens are a text's, which may be padded and grow.
        mask_of: what the prompt's 2D mask counts of it: its queries, its keys, or nothing.
    """

    module: nn.Module
    tower: str
    layer: int
    path: str
    registered: bool = True
    cross: bool = False
    padded: bool = True
    mask_of: MaskOf = "queries"


@dataclass(frozen=True)
class Attending:
    """A module that attends, by where it stands.

    Attributes:
        path: dotted, in the model.
        module: the module.
        registered: whether its attention goes through transformers' registry.
    """

    path: str
    module: nn.Module
    registered: bool

    @property
    def stack(self) -> str:
        """Its path with `*` for the numbers."""
        return ".".join("*" if _NUMBER.match(p) else p for p in self.path.split("."))

    @property
    def kind(self) -> str:
        """What stands after the last number, or the whole path: `self_attn`."""
        return self.stack.rsplit("*.", 1)[-1]

    @property
    def holder(self) -> str | None:
        """What stands before the first number, `decoder.layers`; None without a number."""
        parts = self.stack.split(".")
        return ".".join(parts[: parts.index("*")]) if "*" in parts else None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers in its path."""
        return tuple(int(p) for p in self.path.split(".") if _NUMBER.match(p))

    @property
    def cross(self) -> bool:
        """Whether it says of itself, by name or attribute, that its keys come from elsewhere."""
        own = huggingface.says_cross_attention(self.module)
        return bool(_CROSS.search(self.kind)) if own is None else own


Stack = list[Attending]


def attending(model: nn.Module, path: str) -> list[Attending]:
    """Return every module at or below a path that attends, in the network's order."""
    found = []
    for name, module in model.get_submodule(path).named_modules(prefix=path):
        registered = huggingface.calls_interface(type(module))
        if registered or _is_own_attention(module):
            found.append(Attending(name, module, registered))
    return found


def stack_of(found: Sequence[Attending], kind: str | None, cross: bool, where: str) -> Stack:
    """Return the one stack of attention layers that is meant.

    Args:
        found: what attends in the tower.
        kind: what the attention is called within its layer, `self_attn`; None for the only one.
        cross: whether cross attention is meant, where no kind is named.
        where: the tower as the user named it, for errors.

    Raises:
        UnsupportedModelError: if there is none, or more than one.
    """
    if kind is not None:
        chosen = [a for a in found if kind in (a.kind, *a.kind.split("."))]
        if not chosen:
            kinds = ", ".join(dict.fromkeys(a.kind for a in found)) or "none"
            raise UnsupportedModelError(
                f"tower {where!r}: no attention layer called {kind!r}; there are: {kinds}"
            )
    else:
        chosen = [a for a in found if a.cross == cross]
        # A module named by its own path is what is meant, whatever its name says.
        chosen = found if len(found) == 1 and found[0].path == where else chosen
        if not chosen:
            raise UnsupportedModelError(_nothing(found, cross, where))
    return _one_stack(chosen, where)


def sites_of(
    stack: Stack, tower: str, cross: bool | None, padded: bool | None, decodes: bool
) -> tuple[Site, ...]:
    """Return a stack's layers as sites, in order of their index.

    Args:
        stack: the layers.
        tower: the tower's name.
        cross: whether they are cross attention; None to ask each.
        padded: whether their tokens are a text's; None where layers that take a cache are so.
        decodes: whether they are of a decoder that has an encoder, whose prompt is another.

    The index is the module's own `layer_idx`, else the number in its path, else its place.
    """
    sites = []
    for one, layer in zip(stack, _indices(stack), strict=True):
        crossed = one.cross if cross is None else cross
        takes_cache = one.registered and huggingface.takes_cache(one.module)
        text = takes_cache if padded is None else padded
        mask_of: MaskOf = ("keys" if crossed else None) if decodes else "queries"
        sites.append(
            Site(
                module=one.module,
                tower=tower,
                layer=layer,
                path=one.path,
                registered=one.registered,
                cross=crossed,
                padded=text,
                mask_of=mask_of if text else None,
            )
        )
    return tuple(sorted(sites, key=lambda s: s.layer))


def _is_own_attention(module: nn.Module) -> bool:
    """Return whether a module is named attention and holds nothing that is named so."""
    if "Attention" not in type(module).__name__:
        return False
    return not any("Attention" in type(m).__name__ for m in list(module.modules())[1:])


def _one_stack(chosen: Sequence[Attending], where: str) -> Stack:
    """Return the layers of the only stack; lone modules beside it are pooling heads and the like.

    Raises:
        UnsupportedModelError: if several stacks remain; it lists how each is named.
    """
    numbered = [a for a in chosen if a.holder is not None and a.registered]
    if not numbered:
        registered = [a for a in chosen if a.registered]
        numbered = registered or [a for a in chosen if a.holder is not None] or list(chosen)
    holders = dict.fromkeys(a.holder for a in numbered)
    # Attention of other kinds than the registry's, in the same layers, is part of the stack.
    members = [a for a in chosen if a.holder in holders]
    if len({a.numbers for a in members}) == len(members) and len(holders) == 1:
        return members
    stacks = dict.fromkeys(a.stack for a in numbered)
    if len(stacks) == 1:
        return [a for a in members if a.stack in stacks]
    raise UnsupportedModelError(
        f"tower {where!r} holds {len(stacks)} stacks of attention layers "
        f"({', '.join(list(stacks)[:6])}); name one as `tower`: the path of the module that holds "
        "it, with `:` and the attention's name where one layer has several "
        f"(tower={_suggestion(numbered[0])})"
    )


def _suggestion(one: Attending) -> str:
    return f"{one.holder}:{one.kind}" if one.holder else one.path


def _indices(stack: Sequence[Attending]) -> list[int]:
    own = [getattr(a.module, "layer_idx", None) for a in stack]
    if all(isinstance(i, int) for i in own) and len(set(own)) == len(own):
        return [int(i) for i in own if i is not None]
    if len({len(a.numbers) for a in stack}) == 1:
        for at in zip(*(a.numbers for a in stack), strict=True):
            if len(set(at)) == len(at):
                return list(at)
    return list(range(len(stack)))


def _nothing(found: Sequence[Attending], cross: bool, where: str) -> str:
    if not found:
        return f"no attention layer below {where!r}; name another sub-module as `tower`"
    if cross:
        return f"tower {where!r}: there is no cross attention (no layer whose keys come from afar)"
    kinds = ", ".join(dict.fromkeys(a.kind for a in found))
    return (
        f"tower {where!r} has cross attention alone ({kinds}); name it: `tower=cross`, or the "
        f"path with `:` and its name ({where}:{found[0].kind})"
    )


def holders_of(sites: Sequence[Site]) -> Iterator[str]:
    """Yield the paths of the modules that hold all sites and no layer, the model itself ("") first.

    Whatever of them is called may have been given the padding, and its call is one forward.
    """
    split = [site.path.split(".") for site in sites]
    for count in range(min(map(len, split))):
        parts = split[0][:count]
        if any(other[:count] != parts for other in split) or any(map(_NUMBER.match, parts)):
            return
        yield ".".join(parts)
