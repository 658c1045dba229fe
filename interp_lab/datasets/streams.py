"""Streams that run beside each other: the same moments must stand in the same rows.

Extractors differ by a clip or two at the end of a video. More than that is no rounding: one of the
files is cut, or of another rate or another video, and rows that are paired by their number would
belong to different moments.
"""

from collections.abc import Mapping

from interp_lab.errors import SampleError

# Clips by which two streams of one video may differ.
ROUNDING = 2


def common_length(lengths: Mapping[str, int]) -> int:
    """Return how many rows all streams have.

    Args:
        lengths: what each stream is called in messages -> its rows.

    Raises:
        SampleError: if the longest has more than two rows more than the shortest, or more than
            twice as many; names both.
    """
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    low, high = lengths[shortest], lengths[longest]
    if high - low > ROUNDING or high > 2 * low:
        raise SampleError(
            f"{shortest} has {low} rows and {longest} {high}: one of them is cut or of another "
            "rate; extract both with the same clip length"
        )
    return low


def check_duration(rows: int, duration: float, clip_seconds: float) -> None:
    """Check that features last as long as their video.

    Raises:
        SampleError: if they differ by more than two clips, or by more than a factor of two.
    """
    lasts = rows * clip_seconds
    within = abs(lasts - duration) <= (ROUNDING + 1e-6) * clip_seconds
    if not within or lasts > 2 * max(duration, clip_seconds) or duration > 2 * lasts:
        raise SampleError(
            f"{rows} clips of {clip_seconds:g} s are {lasts:g} s, the record's duration is "
            f"{duration:g} s: the features are of another video, cut, or not of "
            f"dataset.clip_seconds={clip_seconds:g}"
        )
