"""Ids of a hub: the cache, and one line for each thing that goes wrong on the way.

The hub here is a server of this test, which answers as the real one does; the client is the real
one.
"""

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import constants, errors
from transformers import AutoConfig

from interp_lab.errors import ConfigError, MissingInputError
from interp_lab.identity.weights import commit_of, weights_identity
from interp_lab.models import loading
from interp_lab.models.adapters import adapter_of, adapter_settings
from interp_lab.models.clip import ClipVision
from interp_lab.models.hub import hub_line
from interp_lab.models.weights import Weights
from interp_lab.zoo import weights_path

CPU = torch.device("cpu")
COMMIT = "c" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, not offline."""
    place = tmp_path / "hub"
    place.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    commit_of.cache_clear()
    return place


def cached(cache: Path, name: str, shipped: str, leave_out: str = "") -> Path:
    """Put a shipped model into the cache as the hub's client does."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    shutil.copytree(weights_path(shipped), snapshot)
    if leave_out:
        (snapshot / leave_out).unlink()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    return snapshot


class Hub(BaseHTTPRequestHandler):
    """Answers every request with one status and the hub's header that names the reason."""

    answer: ClassVar[tuple[int, dict[str, str]]] = (404, {})

    def do_HEAD(self) -> None:
        status, headers = self.answer
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let the hub be at an address."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def said(name: str = "org/model", **given: Any) -> str:
    with pytest.raises(MissingInputError) as error:
        Weights(name, **given).load(AutoConfig.from_pretrained, "configuration")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (
            401,
            {"X-Error-Code": "GatedRepo"},
            ["is gated", "/org/model)", "hf auth login", "HF_TOKEN"],
        ),
        (403, {"X-Error-Code": "GatedRepo"}, ["is gated", "licence", "hf auth login"]),
        (404, {"X-Error-Code": "RepoNotFound"}, ["no such model", "check the id", "hf auth login"]),
        (401, {}, ["no such model", "if it is private"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, ["has no revision v9", "model.revision"]),
    ],
)
def test_what_the_hub_answers_is_one_line_with_what_to_do(
    status: int, headers: dict[str, str], words: list[str], hub: type[Hub]
) -> None:
    hub.answer = status, headers
    line = said(revision="v9")
    assert line.startswith("model.checkpoint=org/model: ")
    assert all(word in line for word in words), line


def test_a_network_that_is_down_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "http://127.0.0.1:9")  # nothing listens there
    # The client waits between its tries.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    line = said()
    assert "cannot be reached" in line and "check the network" in line


def test_what_was_fetched_loads_without_a_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache, "org/clip", "tiny_clip")
    whole = ClipVision(family="clip", checkpoint="zoo:tiny_clip", device=CPU)
    at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = ClipVision(family="clip", checkpoint="org/clip", device=CPU)
    for (name, want), got in zip(
        whole.module.named_parameters(), model.module.parameters(), strict=True
    ):
        assert torch.equal(got, want), name


def test_what_was_not_fetched_is_one_line_offline(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = said()
    assert "HF_HUB_OFFLINE is set" in line and str(cache) in line
    cached(cache, "org/clip", "tiny_clip", leave_out="model.safetensors")
    with pytest.raises(MissingInputError, match=r"weights: .*not \(wholly\) in the hub's cache"):
        ClipVision(family="clip", checkpoint="org/clip", device=CPU)


def test_dtype_auto_is_what_the_fetched_checkpoint_says(cache: Path) -> None:
    place = cached(cache, "org/clip", "tiny_clip")
    config = json.loads((place / "config.json").read_text())
    for name, want in (("torch.bfloat16", "bfloat16"), ("float32", "float32")):
        (place / "config.json").write_text(
            json.dumps(config | {"dtype": None, "torch_dtype": name})
        )
        assert Weights("org/clip", dtype="auto").dtype_name == want


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["disk is full", "HF_HOME", "free"]),
        (errors.LocalEntryNotFoundError("no"), ["cannot be reached", "check the network"]),
        (ValueError("odd"), ["Cause: transformers says something else"]),
    ],
)
def test_the_cause_below_what_transformers_says_counts(
    error: Exception, words: list[str], cache: Path
) -> None:
    wrapped = OSError("transformers says something else")
    wrapped.__cause__ = error
    line = hub_line("model.checkpoint", "a/b", None, "weights", wrapped)
    assert all(word in line for word in words) and "\n" not in line, line


def test_a_busy_hub_is_one_line(cache: Path) -> None:
    import httpx2 as client

    response = client.Response(429, request=client.Request("GET", "http://x"))
    error = errors.HfHubHTTPError("slow down", response=response)
    line = hub_line("model.checkpoint", "a/b", None, "weights", error)
    assert "answers 429 (too many requests)" in line


def test_code_that_a_checkpoint_brings_runs_on_purpose_alone(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    ran = tmp_path / "ran"
    config = {"model_type": "odd_one", "auto_map": {"AutoConfig": "code.Odd"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        "from transformers import PretrainedConfig\n"
        f"open({str(ran)!r}, 'w').close()\n"
        "class Odd(PretrainedConfig):\n    model_type = 'odd_one'\n"
    )
    with pytest.raises(ConfigError) as error:
        Weights(str(folder)).load(AutoConfig.from_pretrained, "configuration")
    line = str(error.value)
    assert "model.trust_remote_code=true" in line and "with all your rights" in line
    assert "\n" not in line and not ran.exists()
    weights = Weights(str(folder), trust_remote_code=True)
    config = weights.load(AutoConfig.from_pretrained, "configuration")
    assert type(config).__name__ == "Odd" and ran.exists()
    assert "REMOTE CODE" in loading.loading_notes(weights, None)[0]


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        ("sdpaa", False, "Did you mean 'sdpa'"),
        ("flash", False, "give one of eager, .*or org/kernel of the hub"),
        ("kernels-community/flash-attn", False, "is compiled code .*model.trust_remote_code=true"),
        ("kernels-community/flash-attn", True, "pip install kernels"),
    ],
)
def test_names_of_attention_are_checked_before_anything_is_loaded(
    name: str, trusted: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=words) as error:
        loading.check_attention(name, trusted)
    assert "\n" not in str(error.value)
    for known in (None, "sdpa", "eager", "flash_attention_2", "flex_attention"):
        assert loading.check_attention(known, False) == {}


def test_a_kernel_of_the_hub_takes_no_ones_place_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"kernels": object()}
    monkeypatch.setattr(loading, "find_spec", there.get)
    with pytest.raises(ConfigError, match="flash_attn is not installed, and compiled code of the"):
        loading.check_attention("flash_attention_2", False)
    assert loading.check_attention("flash_attention_2", True)
    there["flash_attn"] = object()
    assert loading.check_attention("flash_attention_2", False) == {}


def test_a_trusted_kernel_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda package: object())
    assert loading.check_attention("org/kernel", True) == {"allow_all_kernels": True}


@pytest.mark.parametrize(
    "given",
    [
        {"checkpoint": "zoo:tiny_clip", "revision": "v1"},
        {"checkpoint": "./folder", "revision": "v1"},
        {"checkpoint": "a/b", "adapter": "./folder", "adapter_revision": "v1"},
    ],
)
def test_a_folder_has_no_revisions(given: Any) -> None:
    with pytest.raises(ConfigError, match="where it has no revisions; leave it out"):
        Weights(**given)


def test_an_adapter_of_the_hub_loads_from_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    weights = Weights("zoo:tiny_llava", adapter="org/lora")
    with pytest.raises(MissingInputError, match=r"^model.adapter=org/lora: .*HF_HUB_OFFLINE"):
        adapter_of(weights)
    folder = cache / "models--org--lora"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (snapshot / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert adapter_of(weights) == ("org/lora", snapshot)
    assert adapter_settings(snapshot, "x")["peft_type"] == "LORA"
    found = weights_identity({"checkpoint": "zoo:tiny_llava", "adapter": "org/lora"})
    assert found["adapter"] == {"hub": "org/lora", "commit": COMMIT}


def test_a_gated_adapter_says_so(hub: type[Hub]) -> None:
    hub.answer = 403, {"X-Error-Code": "GatedRepo"}
    with pytest.raises(
        MissingInputError, match=r"^model.adapter=org/lora: is gated.*hf auth login"
    ):
        adapter_of(Weights("zoo:tiny_llava", adapter="org/lora"))


def test_an_adapter_beside_the_weights_of_an_id_is_seen(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a look at it transformers would leave it out, or put it on and check nothing."""
    snapshot = cached(cache, "org/llava", "tiny_llava")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert adapter_of(Weights("org/llava")) is None
    (snapshot / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert adapter_of(Weights("org/llava")) == ("org/llava", snapshot)
