"""Reading one sample's values for a figure, and texts as labels."""

import unicodedata

import numpy as np

from interp_lab.errors import StoreError
from interp_lab.fields import Field
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError

INVISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


def shown(text: str) -> str:
    """Return a text as a label: composed letters, no space around it, blanks made visible."""
    text = unicodedata.normalize("NFC", text)
    bare = text.strip()
    return bare or INVISIBLE.get(text[:1], "␣")


def read_field(
    results: Results, sample: str, name: str, kind: type[Field]
) -> tuple[Field, np.ndarray]:
    """Return a field of one sample, with its values.

    Raises:
        NothingToDrawError: if the sample does not hold it, or as another kind.
    """
    field = results.fields.get(name)
    if not isinstance(field, kind):
        held = [n for n, f in results.fields.items() if isinstance(f, kind)]
        raise NothingToDrawError(
            f"the result holds no {kind.__name__} {name}; it has {', '.join(held) or 'none'}",
            name,
            held,
        )
    return field, np.asarray(read_ragged(results, name, sample))


def read_ragged(results: Results, name: str, sample: str) -> object:
    """Return a sample's value.

    Raises:
        NothingToDrawError: if this sample alone does not hold it, as a written word has no sound.
    """
    try:
        return results.read(name, sample)
    except StoreError as error:
        raise NothingToDrawError(str(error)) from error
