"""What a batch reads and writes: the model's files, videos, and the output directory."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from jobs.doctor.finding import OK, Finding, ok, problem, size
from jobs.errors import BadInput
from jobs.models.facts import local_directory, read_facts
from jobs.models.hub import HUB_ID, hub_errors, refusal
from jobs.options.batch import DoctorOptions
from jobs.store.files import existing
from jobs.store.medium import VIDEO
from jobs.store.mp4 import encode_two_frames
from jobs.store.open import open_storage
from jobs.store.rehearsal import check_folders

HUB_TIMEOUT_S = 5
HUB_REMEDY = "correct --model, or hf auth login; without the hub, copy the model here and give --model its directory"


def check_video(options: DoctorOptions) -> Iterator[Finding]:
    """Encode two frames and decode them."""
    try:
        _, facts = encode_two_frames()
    except OSError as error:
        yield problem(str(error), VIDEO.remedy)
        return
    yield ok(f"writes and reads {facts.codec}")


def check_output(options: DoctorOptions) -> Iterator[Finding]:
    """Write to the output directory."""
    if options.out is None:
        yield ok("not asked for; --out names one")
        return
    try:
        storage = open_storage(options.out)
        check_folders(storage)
    except BadInput as error:
        yield problem(str(error), "name a directory or URL that you may write, or give yourself access to it")
        return
    yield ok(f"{storage} can be written")


def check_model(options: DoctorOptions) -> Iterator[Finding]:
    """The files of a local model, or whether a hub model is in the cache or on the hub; nothing is downloaded."""
    model = options.model
    directory, hub = local_directory(model), HUB_ID.fullmatch(model)
    if directory is None and hub:
        yield _hub_model(hub["name"], hub["revision"], options.variant)
    else:
        yield _local_model(model, directory or Path(model), options.variant)


def _local_model(model: str, directory: Path, variant: str | None) -> Finding:
    try:
        facts = read_facts(model, variant=variant)
    except (BadInput, OSError) as error:
        return problem(str(error), "copy the whole diffusers directory, or correct --model")
    return ok(f"{model}: {facts.dtype}, {size(_num_bytes(directory))} in {directory}")


def _num_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _hub_model(name: str, revision: str | None, variant: str | None) -> Finding:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        directory = snapshot_download(name, revision=revision, local_files_only=True)
    except HFValidationError as error:
        return problem(str(error), "correct --model: owner/name or owner/name@revision")
    except LocalEntryNotFoundError:
        return _on_the_hub(name, revision)
    cached = _local_model(directory, Path(directory), variant)
    return cached if cached.verdict == OK else _on_the_hub(name, revision, cached)


def _on_the_hub(name: str, revision: str | None, cached: Finding | None = None) -> Finding:
    """What is not in the cache, or not all of it; `cached` says what is wrong with what is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        files = snapshot_download(name, revision=revision, dry_run=True, etag_timeout=HUB_TIMEOUT_S)
    except hub_errors() as error:
        found = str(refusal(name, revision, error))
        return problem(f"{cached.found}; {found}" if cached else found, HUB_REMEDY)
    missing = sum(file.file_size or 0 for file in files if file.will_download)
    if cached and not missing:
        return cached
    free = psutil.disk_usage(str(existing(Path(HF_HUB_CACHE)))).free
    found = f"{name} is on the hub, {size(missing)} to be downloaded, {size(free)} free for it"
    return ok(found) if missing < free else problem(found, "set HF_HOME to a larger disk")
