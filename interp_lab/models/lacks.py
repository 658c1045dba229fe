"""What a model may lack that an analysis asks of it, and the line that says so; without torch."""

from interp_lab.errors import UnsupportedModelError

# What a model may lack -> what to do about it.
DECODER = "decoder that reads the prompt"
REMEDIES = {
    "answers": "take a model that writes",
    "gates": "name them in model.gates, or take a model that has some",
    DECODER: "take a model that is no encoder-decoder",
    "hidden states": "take a vision tower",
}


def unfit(kind: type, lack: str) -> UnsupportedModelError:
    """Return the error for a model that lacks what an analysis asks of it.

    Args:
        kind: the model's class.
        lack: what it lacks, one of those that `LoadedModel` names.
    """
    return UnsupportedModelError(
        f"{kind.__name__} has no {lack}, which this task measures: {REMEDIES[lack]}; "
        "mode=models lists which task runs with which model"
    )
