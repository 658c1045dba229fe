"""Questions about places in pictures, as Reason-RFT's files hold them: one or more pictures each.

One damaged record is one failed sample; only a file that is no list of records stops a run before
it starts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interp_lab.config.signature import Distinct
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.images import read_image
from interp_lab.datasets.ondisk import spelling
from interp_lab.datasets.points import Coordinates, parse_point
from interp_lab.datasets.records import check_id, distinct_names, is_storable, read_records
from interp_lab.datasets.trajectory_prompts import INSTRUCTION, PRODUCT, asked, prompt_of
from interp_lab.errors import ConfigError, MissingInputError, SampleError, did_you_mean


class TrajectoryFile:
    """Records with `id`, `image` (a path or a list), `problem`, `solution` and `answer`.

    A sample's parts are the pictures in order, then the prompt with the problem. Its answer is
    the record's `answer` as text, else its `solution`. Its facts: `image_files`, and
    `reference_points` (for each picture x, y as shares of it; None if the answer holds no
    coordinates) and `reference_point`, that of the first.

    Records are chosen in this order: `ids`, `sample_idx`, `max_samples`.

    Args:
        data_file: a JSON list of records.
        image_dir: where the records' pictures lie; null = beside the file.
        sample_idx: the place of a record, or a list of places; negative from the end; null = all.
        ids: only these records; null = all.
        max_images: a record with more pictures fails, since leaving one out changes the question.
        max_samples: use the first so many; -1 = all.
        instruction: in our prompt it follows the problem on a line of its own, as it stands;
            empty for none, null for ours.
        coordinates: the unit of the records' answers: thousandths of a picture, pixels of the
            picture as it is in its file, upright, or shares of it.
        prompt: `product` (the problem without blanks around it, then the instruction),
            `reason_rft` or `vlmlocpredictor` (what their checkpoints were trained with, character
            by character), or a text of your own that holds `{problem}`.

    Attributes:
        prompts: the prompt's name -> its text with `{problem}`.

    Raises:
        MissingInputError: if file or folder is not there, or the file cannot be read as JSON.
        ConfigError: if it holds no list of records, or none is where the options say.
    """

    gives = ("text", "image")

    def __init__(
        self,
        data_file: str,
        image_dir: str | None = None,
        sample_idx: int | Distinct[int] | None = None,
        ids: Distinct[str | int] | None = None,
        max_images: int = 2,
        max_samples: int = -1,
        instruction: str | None = INSTRUCTION,
        coordinates: Coordinates = "thousandths",
        prompt: str = PRODUCT,
    ) -> None:
        if max_samples != -1 and max_samples < 1:
            raise ConfigError(f"dataset.max_samples={max_samples}: give -1 (all) or at least 1")
        if max_images < 1:
            raise ConfigError(f"dataset.max_images={max_images}: give at least 1")
        self._max_images = max_images
        self._coordinates: Coordinates = coordinates
        self._prompt = prompt_of(prompt, instruction)
        self.prompts = dict([self._prompt])
        self._records = read_records(data_file, "dataset.data_file")
        self._names = distinct_names(self._records)
        kept = self._at(sample_idx, self._with_ids(ids))
        self._chosen = kept[:max_samples] if max_samples > 0 else kept
        self._folder = _folder(data_file, image_dir)

    def ids(self) -> Sequence[str]:
        """Return the records' ids; a record whose id cannot be used has a name by its place."""
        return [self._names[n] for n in self._chosen]

    def counts(self) -> dict[str, int]:
        """Return nothing: every record that was asked for is a sample."""
        return {}

    def made_of(self, index: int) -> MadeOf:
        """Return the record and the files of its pictures, if it names some that can be used."""
        record = self._records[self._chosen[index]]
        value = record.get("image") if isinstance(record, dict) else None
        try:
            files = tuple(
                spelling(self._folder, f) for f in self._image_files(value) if is_storable(f)
            )
        except SampleError:
            files = ()
        return MadeOf(record, files)

    def load(self, index: int) -> Sample:
        """Return one problem with its pictures.

        Raises:
            SampleError: if the record is malformed or a picture cannot be used.
        """
        number = self._chosen[index]
        record, name = self._records[number], self._names[number]
        check_id(record, name, number)
        problem = record.get("problem")
        if not isinstance(problem, str) or not problem.strip() or not is_storable(problem):
            raise SampleError(f"problem={problem!r:.60}: should be a text")
        text = asked(*self._prompt, problem)
        answer = record.get("answer", record.get("solution"))
        files = self._image_files(record.get("image"))
        images = tuple(self._picture(file) for file in files)
        points = tuple(
            parse_point(answer, self._coordinates, image.size)
            or parse_point(record.get("solution"), self._coordinates, image.size)
            for image in images
        )
        facts: dict[str, Any] = {
            "image_files": tuple(files),
            "reference_points": points,
            "reference_point": points[0],
        }
        parts = (*(("image", i) for i in range(len(images))), ("text", text))
        known = None if answer is None else _as_text(answer)
        return Sample(name, parts, images, answer=known, facts=facts)

    def _with_ids(self, ids: Sequence[str | int] | None) -> list[int]:
        if ids is None:
            return list(range(len(self._records)))
        place = {name: n for n, name in enumerate(self._names)}
        for name in ids:
            if str(name) not in place:
                near = did_you_mean(str(name), self._names)
                raise ConfigError(f"dataset.ids: no record {str(name)!r} in the file.{near}")
        if not ids:
            raise ConfigError("dataset.ids is empty; give null for all records")
        return sorted({place[str(name)] for name in ids})

    @staticmethod
    def _at(places: int | list[int] | None, chosen: list[int]) -> list[int]:
        if places is None:
            return chosen
        wanted = [places] if isinstance(places, int) else places
        for place in wanted:
            if not -len(chosen) <= place < len(chosen):
                raise ConfigError(
                    f"dataset.sample_idx={place}: there are {len(chosen)} records, 0 to "
                    f"{len(chosen) - 1}"
                )
        if not wanted:
            raise ConfigError("dataset.sample_idx is empty; give null for all records")
        return [chosen[place] for place in dict.fromkeys(p % len(chosen) for p in wanted)]

    def _image_files(self, value: Any) -> list[str]:
        files = [value] if isinstance(value, str) else value
        if not isinstance(files, list) or not all(isinstance(f, str) and f.strip() for f in files):
            raise SampleError(f"image={value!r:.60}: should be a path or a list of paths")
        if not files:
            raise SampleError("image: the list of pictures is empty")
        if len(files) > self._max_images:
            raise SampleError(
                f"image: {len(files)} pictures, dataset.max_images={self._max_images} allows "
                f"{self._max_images}; raise it"
            )
        return files

    def _picture(self, file: str) -> Image.Image:
        if not is_storable(file):
            raise SampleError(f"image={file!r:.60}: not a path")
        return read_image(spelling(self._folder, file))[0]


def _folder(data_file: str, image_dir: str | None) -> Path:
    if image_dir is None:
        return Path(data_file).expanduser().absolute().parent
    folder = existing_path("dataset.image_dir", image_dir)
    if not folder.is_dir():
        raise MissingInputError(f"dataset.image_dir={image_dir}: not a folder")
    return folder


def _as_text(answer: Any) -> str:
    """Return an answer as text: a list of coordinates as `[x, y]`."""
    text = answer if isinstance(answer, str) else str(answer)
    if not is_storable(text):
        raise SampleError("answer: holds letters that cannot be stored")
    return text
