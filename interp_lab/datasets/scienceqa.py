"""ScienceQA as LLaVA's files or the data set's own hold it: multiple-choice questions.

LLaVA's have two layouts that may be mixed in one file: `mcq` (`<image>` first, options as lines,
the answer is a letter) and `qcm_lea` (`<image>` last, `Options: (A) x (B) y`, a long answer that
states "The answer is A."). The data set's own is `problems.json`. One damaged record is one failed
sample; only a file that is no list of records stops a run before it starts.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from interp_lab.config.signature import Distinct
from interp_lab.datasets.answers import declared_letter, inline_options, line_options
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.conversations import CHAT_TEMPLATE, CONVERSATIONS, IMAGE
from interp_lab.datasets.images import read_image
from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.ondisk import spelling
from interp_lab.datasets.records import as_records, check_id, distinct_names, is_storable
from interp_lab.datasets.scienceqa_problems import KEY, PROBLEM, is_problems, records_of
from interp_lab.errors import ConfigError, MissingInputError, SampleError, did_you_mean

IMAGE_MARK = "<image>"
INSTRUCTION = "Answer with the option's letter from the given choices directly."
QUESTION = "{question}"
ConvMode = Literal[
    "vicuna_v1",
    "v1",
    "llava_v1",
    "llava_v0",
    "llava_llama_2",
    "mpt",
    "plain",
    "v0_plain",
    "chat_template",
]

# Characters of a text of about as many tokens as a picture has.
PICTURE_LENGTH = 2000


class ScienceQA:
    """Questions of a ScienceQA file.

    A sample's parts are the picture, if there is one, then the question and the instruction. Its
    answer is a letter. Its facts: `image_file` (as in the record; empty without a picture),
    `options` (letter -> text; empty if they cannot be read), `layout` (mcq or qcm_lea),
    `conv_mode`, `stop` (where an answer ends in that format, if not with the model's own mark),
    `question` (without instruction and without the `<image>` at its beginning or end;
    within it the word is text), `note` (what was chosen while
    reading an unusual picture, if anything was).

    Records are chosen in this order: text-only ones, `ids`, `order`, `max_samples`.

    Args:
        question_file: a JSON list of records, or the data set's `problems.json`.
        image_folder: where the records' pictures lie; null if no record has one. Of
            `problems.json`: `<pid>/image.png` lies in it, or in its folder of the problem's split.
        max_samples: use the first so many; -1 = all.
        text_only: `skip` leaves out records without a picture, `include` measures them.
        ids: only these records; null = all.
        order: `file`, or `id` (numbers by value, before words).
        conv_mode: the prompt's format, for the model: LLaVA v1.5's own (`vicuna_v1`), that of an
            earlier release of LLaVA (see `datasets.conversations`), or its chat template.
        instruction: follows the question on a line of its own, as it stands, unless it ends with
            it already; empty for none.
        split: of `problems.json`, as `pid_splits.json` beside it says, such as test; null = all.

    Attributes:
        conversation: the format that the model must know.
        prompts: the format's name -> its text with `{image}` and `{question}`.
        skipped_text_only: records that `text_only=skip` left out, among those of `ids`.

    Raises:
        MissingInputError: if file or folder is not there, or the file cannot be read as JSON.
        ConfigError: if it holds no list of records, or no record is left to measure.
    """

    gives: tuple[str, ...] = ("text", "image")
    knows = ("options",)

    def __init__(
        self,
        question_file: str,
        image_folder: str | None = None,
        max_samples: int = -1,
        text_only: Literal["skip", "include"] = "skip",
        ids: Distinct[str | int] | None = None,
        order: Literal["file", "id"] = "file",
        conv_mode: ConvMode = "vicuna_v1",
        instruction: str = INSTRUCTION,
        split: str | None = None,
    ) -> None:
        if max_samples != -1 and max_samples < 1:
            raise ConfigError(f"dataset.max_samples={max_samples}: give -1 (all) or at least 1")
        self.conversation = conv_mode
        self._instruction = instruction
        self.prompts = {conv_mode: self._stated_prompt()}
        self._records = _records_of(question_file, split)
        self._names = distinct_names(self._records)
        chosen = self._with_ids(ids)
        kept = [n for n in chosen if text_only == "include" or not _is_text_only(self._records[n])]
        self.skipped_text_only = len(chosen) - len(kept)
        if not kept:
            raise ConfigError(
                f"dataset.question_file={question_file}: all {len(chosen)} records are without a "
                "picture; give dataset.text_only=include to measure them"
            )
        if order == "id":
            kept.sort(key=lambda n: _by_number(self._names[n]))
        self._chosen = kept[:max_samples] if max_samples > 0 else kept
        self._folder = self._image_folder(image_folder)
        if image_folder is None:
            self.gives = ("text",)

    def ids(self) -> Sequence[str]:
        """Return the records' ids; a record whose id cannot be used has a name by its place."""
        return [self._names[n] for n in self._chosen]

    def counts(self) -> dict[str, int]:
        """Return how many records without a picture were left out."""
        return {"skipped_text_only": self.skipped_text_only}

    def made_of(self, index: int) -> MadeOf:
        """Return the record and the file of its picture, if it names one that can be used."""
        record = self._records[self._chosen[index]]
        try:
            named = _names_picture(record)
            files = (self._image_path(record["image"], record.get("split")),) if named else ()
        except SampleError:
            files = ()
        return MadeOf(record, files)

    def lengths(self) -> list[int]:
        """Return how long each question is, in characters; one with a picture is longer."""
        records = [self._records[n] for n in self._chosen]
        return [_length(record) for record in records]

    def load(self, index: int) -> Sample:
        """Return one question with its picture.

        Raises:
            SampleError: if the record is malformed or its picture cannot be used.
        """
        number = self._chosen[index]
        record, name = self._records[number], self._names[number]
        check_id(record, name, number)
        if PROBLEM in record:
            raise SampleError(record[PROBLEM])
        raw, answer_text = _turns(record)
        question = _without_mark(raw)
        if not question:
            raise SampleError("the question is empty")
        inline = inline_options(question)
        options = inline or line_options(question)
        facts: dict[str, Any] = {
            "image_file": "",
            "options": options,
            "layout": "qcm_lea" if inline else "mcq",
            "conv_mode": self.conversation,
            "question": question,
        }
        if self.conversation in CONVERSATIONS and CONVERSATIONS[self.conversation].stop:
            facts["stop"] = CONVERSATIONS[self.conversation].stop
        answer = _answer(answer_text, options)
        text = ("text", self._with_instruction(question))
        if _is_text_only(record):
            return Sample(name, (text,), answer=answer, facts=facts)
        image, note = read_image(self._image_path(record.get("image"), record.get("split")))
        facts["image_file"] = record["image"]
        facts |= {"note": note} if note else {}
        return Sample(name, (("image", 0), text), (image,), answer=answer, facts=facts)

    def _with_instruction(self, question: str) -> str:
        if not self._instruction or question.endswith(self._instruction):
            return question
        return f"{question}\n{self._instruction}"

    def _stated_prompt(self) -> str:
        """Return the whole prompt; of a chat template, the model's, what is put into it."""
        text = self._with_instruction(QUESTION)
        if self.conversation == CHAT_TEMPLATE:
            return f"{IMAGE}{text}"
        return CONVERSATIONS[self.conversation].prompt(text, IMAGE)[0]

    def _with_ids(self, ids: Sequence[str | int] | None) -> list[int]:
        if ids is None:
            return list(range(len(self._records)))
        wanted = {str(name) for name in ids}
        missing = sorted(wanted - set(self._names))
        if missing or not wanted:
            near = did_you_mean(missing[0], self._names) if missing else ""
            what = (
                f"no record {missing[0]!r} in the question file.{near}" if missing else "is empty"
            )
            raise ConfigError(f"dataset.ids: {what}")
        return [n for n, name in enumerate(self._names) if name in wanted]

    def _image_folder(self, image_folder: str | None) -> Path | None:
        n_images = sum(_names_picture(self._records[n]) for n in self._chosen)
        if image_folder is None:
            if n_images:
                raise ConfigError(
                    f"dataset.image_folder is not given: {n_images} of {len(self._chosen)} records "
                    "name a picture"
                )
            return None
        folder = existing_path("dataset.image_folder", image_folder)
        if not folder.is_dir():
            raise MissingInputError(f"dataset.image_folder={image_folder}: not a folder")
        return folder

    def _image_path(self, relative: object, split: object = None) -> Path:
        """Return where a record's picture lies; links within the folder are the user's own."""
        if not isinstance(relative, str) or not relative.strip() or not is_storable(relative):
            raise SampleError(f"image={relative!r}: should be the path of a picture")
        inside = os.path.normpath(relative)
        if os.path.isabs(inside) or inside.split(os.sep)[0] == "..":
            raise SampleError(f"image={relative!r} lies outside dataset.image_folder")
        assert self._folder is not None
        path = spelling(self._folder, inside)
        if isinstance(split, str) and Path(split).name == split and not path.exists():
            return spelling(self._folder, f"{split}/{inside}")
        return path


def _records_of(question_file: str, split: str | None) -> list[Any]:
    found = read_json(KEY, question_file)
    if is_problems(found):
        return records_of(found, question_file, split)
    if split is not None:
        raise ConfigError(
            f"dataset.split={split}: only a problems.json has splits, not {question_file}; give "
            "null"
        )
    return as_records(found, question_file)


def _without_mark(question: str) -> str:
    """Return the question without the mark where layouts put it: first or last, once."""
    text = question.strip()
    if text.startswith(IMAGE_MARK):
        return text.removeprefix(IMAGE_MARK).strip()
    return text.removesuffix(IMAGE_MARK).strip()


def _names_picture(record: Any) -> bool:
    return isinstance(record, dict) and record.get("image") is not None


def _length(record: Any) -> int:
    """Return how long a record's question is; 0 for one without a question."""
    try:
        question, _ = _turns(record)
    except (SampleError, AttributeError):
        return 0
    return len(question) + (PICTURE_LENGTH if _names_picture(record) else 0)


def _is_text_only(record: Any) -> bool:
    """Return whether a record neither has nor mentions a picture.

    One that mentions a picture and names none is malformed: it has to fail, not to be left out.
    """
    if not isinstance(record, dict) or _names_picture(record):
        return False
    return IMAGE_MARK not in json.dumps(record.get("conversations"))


def _by_number(name: str) -> tuple[bool, int, str]:
    is_number = name.isascii() and name.isdigit() and len(name) < 20
    return not is_number, int(name) if is_number else 0, name


def _turns(record: dict[str, Any]) -> tuple[str, str]:
    """Return the first question and its answer."""
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2:
        raise SampleError("conversations: should be a list of a question and its answer")
    texts = []
    for turn, speaker in zip(turns, ("human", "gpt"), strict=False):
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise SampleError(
                f"conversations: should have a turn from {speaker!r} here: {turn!r:.60}"
            )
        value = turn.get("value")
        if not isinstance(value, str) or not is_storable(value):
            raise SampleError(f"conversations: the turn from {speaker!r} has no text as its value")
        texts.append(value)
    return texts[0], texts[1]


def _answer(text: str, options: dict[str, str]) -> str:
    letter = declared_letter(text)
    if letter is None:
        raise SampleError(f"no letter in the answer {text[-60:]!r}")
    if options and letter not in options:
        raise SampleError(f"answer {letter!r} is none of the options {', '.join(options)}")
    return letter
