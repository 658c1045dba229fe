"""Reading a JSON file that the configuration names: every way it can fail is one line."""

import json
from typing import Any

from interp_lab.datasets.base import existing_path
from interp_lab.errors import MissingInputError


def read_json(key: str, file: str) -> Any:
    """Return what a JSON file holds; what it is, is not checked.

    Args:
        key: the configuration key that names the file, for the error.
        file: its path.

    Raises:
        MissingInputError: if it is not there, cannot be read, or is not JSON in UTF-8.
    """
    path = existing_path(key, file)
    if path.is_fifo() or path.is_char_device() or path.is_socket():
        raise MissingInputError(f"{key}={file}: no regular file; reading it might never end")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MissingInputError(f"{key}={file}: cannot read it ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise MissingInputError(f"{key}={file}: not UTF-8 text ({error.reason})") from error
    except (ValueError, RecursionError) as error:  # ValueError also for numbers of 4,300 digits
        raise MissingInputError(f"{key}={file}: not JSON ({error})") from error
