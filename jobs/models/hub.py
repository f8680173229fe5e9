"""Models on the hub: their JSON files in the local cache, and what is said when they cannot be had."""

import re
from pathlib import Path

from jobs.errors import BadInput, InfrastructureError, JobError
from jobs.models.registry import FAMILIES

HUB_FILES = (
    *("model_index.json", "transformer/config.json", "transformer_2/config.json", "vae/config.json"),
    *("tokenizer/tokenizer.json", "resca.json", "plans/*.yaml"),
    *sorted({f"{name}/{name}_config.json" for family in FAMILIES.values() for name in family.loop}),
)
HUB_ID = re.compile(r"(?P<name>[\w][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


def download(name: str, revision: str | None) -> Path:
    """The JSON files of a hub repository, in the local cache. The folder is named by the commit.

    Raises:
        BadInput: there is no such model.
        InfrastructureError: the hub does not answer, or the cache cannot be written.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except hub_errors() as error:
        raise refusal(name, revision, error) from error


def repository_files(name: str, commit: str) -> dict[str, set[str]]:
    """The names of all files by their folder, as `download` has learnt them of the hub; none if it has only a cache."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    try:
        paths = [Path(file.path) for file in get_cached_repo_tree(name, revision=commit)]
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return {}
    folders = {str(path.parent) for path in paths}
    return {folder: {path.name for path in paths if str(path.parent) == folder} for folder in folders}


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when a model cannot be had."""
    from huggingface_hub.errors import HFValidationError, HTTPError

    return HFValidationError, HTTPError, OSError


def refusal(name: str, revision: str | None, error: Exception) -> JobError:
    """Why a model cannot be had, in one sentence: it is not there, the hub is away, or the cache is at fault."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import (
        DryRunError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cause = error.__cause__ if isinstance(error, DryRunError | LocalEntryNotFoundError) else error
    if isinstance(cause, HFValidationError | RepositoryNotFoundError | RevisionNotFoundError):
        return BadInput(f"model {name} at revision {revision or 'main'} is not on the hub, or is not public")
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ConnectionError | TimeoutError):
        return InfrastructureError(
            f"the hub's cache {HF_HUB_CACHE} cannot be used: {cause.strerror}; set HF_HOME to a directory of your own"
        )
    offline = isinstance(cause, OfflineModeIsEnabled)
    silent = "HF_HUB_OFFLINE keeps the hub from being asked" if offline else "the hub does not answer"
    folder = Path(name).parent
    if folder.is_dir():
        return BadInput(f"there is no model directory {name}, though {folder} is there; and {silent} for such a model")
    return InfrastructureError(f"model {name} is no directory here and not in {HF_HUB_CACHE}, and {silent}")
