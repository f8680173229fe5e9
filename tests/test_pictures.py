"""The pictures that the READMEs of the packages begin with show every file, and none that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHOUT_FILES = {"commands", "doctor", "demo", "analysis", "gpu", "results", "gallery"}  # rooms shown as a whole


def shown(package: str) -> set[str]:
    """What stands on the left of the picture, the first block of the README."""
    picture = re.search(r"\n\n((?: {4}.*\n)+)", (ROOT / package / "README.md").read_text())
    assert picture
    lines = [re.split(r" {2,}", line.strip())[0] for line in picture[1].splitlines()]
    return {name for line in lines for name in line.split(", ")}


def there(folder: Path) -> set[str]:
    files = {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
    rooms = [path for path in folder.iterdir() if (path / "__init__.py").exists()]
    inside = [there(room) for room in rooms if room.name not in WITHOUT_FILES]
    return files.union({f"{room.name}/" for room in rooms}, *inside)


@pytest.mark.parametrize("package", ["caching", "parallel", "cluster", "jobs"])
def test_a_picture_shows_what_is_there(package):
    assert shown(package) - {"results/"} == there(ROOT / package)
