"""Runs the atlas: every model type of the installed transformers, watched and judged.

    python tests/atlas/atlas.py                      all types; writes docs/atlas.md
    python tests/atlas/atlas.py --only llama t5      these types; only prints
    python tests/atlas/atlas.py --shard 0/2          every second type; only gathers
    python tests/atlas/atlas.py --kept               no type anew; the page of what is kept

Rows are kept in `.atlas` as they come, and a run that was stopped goes on; a change of the capture
or of what measures begins anew. Exit code 1 if anything is wrong or raised: each is named.
"""

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from atlas_page import FAULTS, faults, name_of, page
from forked import apart
from model_types import all_types

# Imported before the forks, so that not each of them does it.
import interp_lab.capture.attention
import interp_lab.capture.generate
import interp_lab.capture.reference  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".atlas"
PAGE = ROOT / "docs" / "atlas.md"
PRINTS_ONLY = {"atlas.py", "atlas_page.py"}


def fingerprint() -> str:
    """Return a hash of the capture and of what measures it, and of the libraries' versions."""
    found = hashlib.sha256(f"{transformers.__version__} {torch.__version__}".encode())
    folders = ("interp_lab/capture", "interp_lab/libraries", "tests/atlas")
    for path in sorted(p for folder in folders for p in (ROOT / folder).glob("*.py")):
        if path.name not in PRINTS_ONLY and not path.name.startswith("test_"):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def kept_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of this code that earlier runs and shards have left, by type."""
    rows = {}
    for path in sorted(KEPT.glob(f"{fingerprint()}*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(text)
            rows[row["type"]] = row
    return rows


def gather(types: list[str], shard: str, again: bool) -> list[dict[str, Any]]:
    """Return the rows of some types, measured where no row of this code is kept."""
    rows = {} if again else kept_rows()
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{fingerprint()}-{shard.replace('/', 'of')}.jsonl"
    with path.open("a", encoding="utf-8") as stream:
        for number, model_type in enumerate(types):
            if model_type not in rows:
                rows[model_type] = apart(model_type)
                stream.write(json.dumps(rows[model_type]) + "\n")
                stream.flush()
                print(f"{number + 1}/{len(types)} {summary(rows[model_type])}", flush=True)
    return [rows[t] for t in types]


def summary(row: dict[str, Any]) -> str:
    """Return a row in one line."""
    if not row["towers"]:
        return f"{row['type']}: {row['reason']}: {row['why'][:100]}"
    said = []
    for tower in row["towers"]:
        found = [o["status"] for o in tower["outcomes"].values()]
        worst = next((s for s in (*FAULTS, "refused", "odds") if s in found), "equal")
        said.append(f"{name_of(tower)} {worst}")
    return f"{row['type']}: {', '.join(said)} ({row['seconds']} s)"


def main() -> int:
    """Run what was asked for; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="TYPE")
    parser.add_argument("--shard", default="0/1", metavar="I/N")
    parser.add_argument("--kept", action="store_true", help="write the page of what is kept")
    parser.add_argument("--again", action="store_true", help="measure types that have a row")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    index, count = map(int, options.shard.split("/"))
    types = options.only or all_types()[index::count]
    if options.kept:
        rows = list(kept_rows().values())
    else:
        rows = gather(types, options.shard, options.again)
    if not options.only and count == 1:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(rows, len(all_types())), encoding="utf-8")
    wrong = faults(rows)
    print(*wrong, sep="\n")
    print(f"{len(rows)} types, {sum(bool(r['towers']) for r in rows)} watched, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
