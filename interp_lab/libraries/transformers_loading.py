"""What is assumed of transformers' loading: where it looks for adapters, names of attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import modeling_utils
from transformers.models.auto import auto_factory

_LOADING: Any = modeling_utils
_AUTO: Any = auto_factory


@contextmanager
def without_adapters() -> Iterator[None]:
    """Let `from_pretrained` load what it is pointed at, and no adapter that lies beside it.

    With peft installed it puts an adapter that it finds there on the weights, and its loading info
    is then the adapter's: missing weights of the model itself would go unseen. It looks for one in
    `maybe_load_adapters`, and an `AutoModel...` where `is_peft_available` says so.
    """
    before = _LOADING.maybe_load_adapters, _AUTO.is_peft_available

    def none_found(place: Any, _download: Any, **given: Any) -> tuple[None, Any, Any]:
        return None, place, given

    _LOADING.maybe_load_adapters = none_found
    _AUTO.is_peft_available = lambda *_: False
    try:
        yield
    finally:
        _LOADING.maybe_load_adapters, _AUTO.is_peft_available = before


def attention_names() -> list[str]:
    """Return the names of attention implementations that transformers has itself."""
    known = _LOADING.ALL_ATTENTION_FUNCTIONS.valid_keys()
    return ["eager", *(name for name in known if "|" not in name and "/" not in name)]
