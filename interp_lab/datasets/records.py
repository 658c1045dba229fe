"""A JSON list of records: read, and every record given a name that is its own and stays.

A result is stored, resumed and looked up by sample id. So a damaged id must neither stop a run nor
make two samples one.
"""

import re
from collections.abc import Sequence
from typing import Any

from interp_lab.datasets.jsonfile import read_json
from interp_lab.errors import ConfigError, SampleError


def read_records(question_file: str, key: str = "dataset.question_file") -> list[Any]:
    """Return the records of a file that holds a list; what each is, is not checked.

    Args:
        question_file: its path.
        key: the configuration key that names it, for the error.

    Raises:
        MissingInputError: if it is not there or is not JSON.
        ConfigError: if it is no list, or an empty one.
    """
    return as_records(read_json(key, question_file), question_file, key)


def as_records(records: Any, question_file: str, key: str = "dataset.question_file") -> list[Any]:
    """Return what a JSON file held as its records; arguments and errors as of `read_records`."""
    if not isinstance(records, list):
        kind = {dict: "an object", str: "a text"}.get(type(records), f"{records!r:.40}")
        raise ConfigError(f"{key}={question_file}: holds {kind}, not a list of records")
    if not records:
        raise ConfigError(f"{key}={question_file}: the list of records is empty")
    return records


def distinct_names(records: Sequence[Any]) -> list[str]:
    """Return a name for each record, all different and stable.

    The first record with an id has it; a later one is called `<id> (duplicate, record <n>)`, and
    one whose id is missing or of no use `record <n>`; n counts from 0.
    """
    ids = [usable_id(record) for record in records]
    taken: set[str] = {name for name in ids if name is not None}
    names: list[str] = []
    seen: set[str] = set()
    for number, name in enumerate(ids):
        if name is not None and name not in seen:
            seen.add(name)
            names.append(name)
            continue
        made = f"record {number}" if name is None else f"{name} (duplicate, record {number})"
        while made in taken:  # an id that was chosen to look like one of ours
            made += "'"
        taken.add(made)
        names.append(made)
    return names


def usable_id(record: Any) -> str | None:
    """Return a record's id as text, or None if it has none that can be written and read."""
    value = record.get("id") if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    name = str(value)
    return name if name.strip() and is_storable(name) else None


def is_storable(text: str) -> bool:
    """Return whether a text can be written to a file: JSON can hold what UTF-8 and HDF5 cannot."""
    return "\0" not in text and not re.search("[\ud800-\udfff]", text)


def check_id(record: Any, name: str, number: int) -> None:
    """Check that record `number` goes by its own id.

    Raises:
        SampleError: if it is no object, or its id is missing or another record's.
    """
    if not isinstance(record, dict):
        raise SampleError(f"record {number} of the file is not an object")
    own = usable_id(record)
    if own is None:
        raise SampleError(f"missing id: record {number} of the file has id {record.get('id')!r}")
    if own != name:
        raise SampleError(f"duplicate id {own!r}: an earlier record has it")
