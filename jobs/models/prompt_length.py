"""What a model does not read of long prompts: known by its tokenizer alone, without weights or torch."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import BadInput
from jobs.models.family import Family, Json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# An encoding holds much more than the number of its tokens.
TEXTS_AT_ONCE = 1000
# A word at the start of a prompt, without a space before it, may be more tokens than elsewhere.
FIRST_WORD_TOKENS = 8


def cut_tokens(directory: Path, family: Family, template: Json | None, prompts: Sequence[str]) -> dict[str, int]:
    """How many tokens are cut off at the end, of each prompt that is too long for the model in a directory.

    Prompts of fewer bytes than they may have tokens are not counted, as a token has at least one: where all are such,
    the tokenizer is not read. Nothing is known of a model without a tokenizer.json. Raises BadInput for a broken one.
    """
    if not family.tokenizers:
        return {}
    file = directory / family.tokenizers[0] / "tokenizer.json"
    if not file.exists():
        return {}
    tokenizer = cache(lambda: _read(file))
    room = family.prompt_room(lambda text: len(tokenizer().encode(text)), template)
    long = [] if room is None else [prompt for prompt in dict.fromkeys(prompts) if len(prompt.encode()) > room]
    if room is None or not long:
        return {}
    doubtful = _doubtful(tokenizer(), long, room)
    excess = ((text, number - room) for text, number in zip(doubtful, _counted(tokenizer(), doubtful), strict=True))
    return {text: number for text, number in excess if number > 0}


def _read(file: Path) -> "Tokenizer":
    """A tokenizer that cuts and pads nothing."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"cannot read the tokenizer {file}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _doubtful(tokenizer: "Tokenizer", prompts: Sequence[str], room: int) -> list[str]:
    """The prompts that may be too long by the sum of their words, each of which is counted once for all prompts."""
    words = list({word for prompt in prompts for word in prompt.split(" ")})
    sizes = dict(zip(words, _counted(tokenizer, [f" {word}" for word in words]), strict=True))
    most = room - FIRST_WORD_TOKENS
    return [prompt for prompt in prompts if sum(map(sizes.__getitem__, prompt.split(" "))) > most]


def _counted(tokenizer: "Tokenizer", texts: Sequence[str]) -> Iterator[int]:
    """The tokens of each text, without those that are put around it."""
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        encoded = tokenizer.encode_batch_fast(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False)
        yield from map(len, encoded)
