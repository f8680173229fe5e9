"""The text of a prompt file; of one that is not UTF-8, which encoding it has, and where that shows."""

import codecs
import io
import re
import unicodedata
from pathlib import Path

from jobs.errors import BadInput

BYTE_ORDER_MARK = "\ufeff"
# Files that are joined bring theirs along.
MARKS = re.compile(f"^{BYTE_ORDER_MARK}+", re.MULTILINE)
# What leaves a line empty beside white space and what only steers a text, such as zero-width spaces: fillers, a joiner,
# an empty pattern of braille, variation selectors.
UNSEEN = {"\u034f", "\u115f", "\u1160", "\u2800", "\u3164", "\uffa0", *map(chr, range(0xFE00, 0xFE10))}
# UTF-32 first: its mark begins with that of UTF-16.
WIDE_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def is_blank(text: str) -> bool:
    """Whether nobody sees anything of a text."""
    return all(letter.isspace() or letter in UNSEEN or unicodedata.category(letter) == "Cf" for letter in text)


def read_text(path: Path) -> str:
    """The text, its lines ended by newlines alone, without a byte order mark at the start of any. Raises BadInput."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"prompt file {path} does not exist") from None
    except OSError as error:
        raise BadInput(f"cannot read prompt file {path}: {error.strerror}") from error
    if encoding := _wide_encoding(data):
        raise BadInput(f"{path} is {encoding} text from line 1 on; save it as UTF-8")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}, line {_line_number(data, error.start)} {_not_utf8(data, error.start)}") from None
    return MARKS.sub("", io.StringIO(text, newline=None).getvalue())


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, by the mark at the start or by the zeros that letters have there."""
    for mark, encoding in WIDE_ENCODINGS.items():
        if data.startswith(mark):
            return encoding
    head = data[:200]
    return "UTF-16" if head.count(0) * 3 > len(head) else None


def _line_number(data: bytes, place: int) -> int:
    return len(re.findall(rb"\r\n|\r|\n", data[:place])) + 1


def _not_utf8(data: bytes, place: int) -> str:
    """What is there instead, so that one sees whether it is Windows-1252, which most bytes are valid in."""
    around = re.split(rb"[\r\n]", data[max(0, place - 30) : place])[-1] + re.split(rb"[\r\n]", data[place:])[0][:30]
    try:
        shown = around.decode("cp1252")
    except UnicodeDecodeError:
        return "is neither UTF-8 nor Windows-1252 text; save the file as UTF-8"
    return f"is not UTF-8; as Windows-1252 it reads {shown!r}; save the file as UTF-8"
