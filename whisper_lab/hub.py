"""The Hugging Face Hub: is it within reach, what is in its local cache, fetch what a Whisper checkpoint needs.

huggingface_hub does the transfer; here stand the rules around it: never connect when told to stay offline, never
wait long for a network that is not there, take only the files that are needed, and say what is fetched and where to.
"""

import functools
import os
import re
import threading
from pathlib import Path

from whisper_lab import adapters, console
from whisper_lab.console import LabError

REACH_TIMEOUT = 3.0  # seconds, name look-up included: a lab machine without internet must not feel stuck
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # what forbids connections
CONFIG_FILES = [
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "normalizer.json",
]
# In the order of preference: safetensors holds plain numbers, a .bin file is a pickle.
WEIGHT_PATTERNS = [
    r"model\.safetensors", r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors",
    r"pytorch_model\.bin", r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin",
]


def prepare_environment() -> None:
    """Settings that huggingface_hub and tokenizers read when they are first imported; the user's own values win."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning after every fork of a data loader


def offline() -> str | None:
    """The environment variable that forbids connections to the Hub, as NAME=value, or None."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{name}={os.environ[name]}"
    return None


def go_online() -> str:
    """What ends `offline`, to be typed."""
    return f"allow the Hub: unset {' '.join(name for name in OFFLINE if os.environ.get(name))}"


@functools.cache
def out_of_reach() -> str | None:
    """Why the Hub cannot be asked, or None if it answers. At most REACH_TIMEOUT seconds, one time a process."""
    if setting := offline():
        return f"{setting} is set"
    try:
        _client()  # imported here: from a cold disk that takes seconds, which are not the network's
    except ImportError as error:
        return f"huggingface_hub cannot be imported: {error}"
    outcome: list[str | None] = []
    # The system's name look-up knows no timeout of its own: ask in a thread that may be left behind.
    thread = threading.Thread(target=lambda: outcome.append(_ask()), daemon=True)
    thread.start()
    thread.join(REACH_TIMEOUT)
    return outcome[0] if outcome else f"no answer within {REACH_TIMEOUT:g} s"


def _client():
    prepare_environment()
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    return constants, get_session


def _ask() -> str | None:
    constants, get_session = _client()
    try:
        status = get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT).status_code
    except Exception as error:  # whatever goes wrong here means the same: not within reach
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return f"it answers with HTTP status {status}" if status >= 500 else None


def cached(repository: str) -> Path | None:
    """The newest snapshot folder of `repository` in the local cache, complete or not, or None. No connection."""
    prepare_environment()
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repository, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def cached_whispers() -> dict[str, Path]:
    """Every repository in the local cache whose name speaks of Whisper -> its snapshot folder."""
    prepare_environment()
    from huggingface_hub import constants

    found = {}
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*whisper*")):
        repository = folder.name.removeprefix("models--").replace("--", "/")
        if snapshot := cached(repository):
            found[repository] = snapshot
    return found


def download(repository: str) -> Path:
    """Fetch the files of a checkpoint into the local cache; returns the snapshot folder.

    Raises LabError where the repository does not exist, is private, has no weights, or the transfer fails.
    """
    prepare_environment()
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=10)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings}
        wanted = needed_files(list(sizes))
        megabytes = sum(sizes[name] for name in wanted) / 1e6
        console.note("download", f"{repository}, {megabytes:.0f} MB", f"into {constants.HF_HUB_CACHE}")
        # No revision: asked for a commit, snapshot_download leaves out the `main` by which cached() finds it again.
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:
        raise _explain(repository, error) from error


def needed_files(names: list[str]) -> list[str]:
    """Out of a repository's file names, the configuration, the tokenizer and ONE form of the weights."""
    weights: list[str] = []
    for pattern in WEIGHT_PATTERNS:
        weights = weights or [name for name in names if re.fullmatch(pattern, name)]
    if not weights and adapters.FILE in names:
        raise LabError("the repository holds an adapter (PEFT, LoRA), not a whole model",
                       "merge it with peft: merge_and_unload(), then save_pretrained(FOLDER), and pass --model FOLDER")
    if not weights:
        raise LabError("the repository holds no PyTorch weights (model.safetensors or pytorch_model.bin)",
                       "choose another checkpoint, such as --model base")
    return [name for name in names if name in CONFIG_FILES] + weights


def _explain(repository: str, error: Exception) -> LabError:
    """Turn what huggingface_hub raises into a problem and a remedy."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, LabError):
        return error
    if isinstance(error, GatedRepoError):
        return LabError(f"{repository} is gated: its owner wants you to accept terms first",
                        f"accept them on the page of {repository} and log in with `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return LabError(f"the Hub has no public checkpoint {repository}",
                        "check the spelling, or log in with `hf auth login` if it is private")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return LabError(f"{repository} could not be downloaded: {reason}",
                    "run the same command again (it goes on where it stopped), or use --model nano")
