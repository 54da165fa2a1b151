"""Which recordings are meant by files, folders, patterns and addresses, and where their transcripts go."""

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ananse_client.calls import is_url

SUFFIXES = frozenset(
    [
        ".aac",
        ".ac3",
        ".aif",
        ".aiff",
        ".amr",
        ".au",
        ".caf",
        ".flac",
        ".m4a",
        ".m4b",
        ".m4v",
        ".mka",
        ".mkv",
        ".mov",
        ".mp2",
        ".mp3",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mpga",
        ".oga",
        ".ogg",
        ".opus",
        ".spx",
        ".ts",
        ".wav",
        ".weba",
        ".webm",
        ".wma",
        ".wmv",
        ".avi",
        ".3gp",
    ]
)
"""In a folder only these are recordings; a file that is named is taken as it is."""

EXTENSIONS = {"json": "json", "text": "txt", "srt": "srt", "vtt": "vtt", "tsv": "tsv", "csv": "csv"}


@dataclass(frozen=True, slots=True)
class Recording:
    """`source` is a path or an address; `place` is where its transcript lies below the output folder, without
    an extension."""

    source: str
    place: Path

    @property
    def name(self) -> str:
        return self.place.name


def find(given: Sequence[str]) -> list[Recording]:
    """Raises FileNotFoundError for what is not there; no recording comes twice."""
    found: dict[str, Path] = {}
    for one in given:
        for source, place in _meant(one):
            found.setdefault(source, place)
    stems = Counter(place.with_suffix("") for place in found.values())
    return [
        # a.mp3 beside a.wav: the full names keep their transcripts apart.
        Recording(source, place if stems[place.with_suffix("")] > 1 else place.with_suffix(""))
        for source, place in found.items()
    ]


def _meant(one: str) -> Iterator[tuple[str, Path]]:
    if is_url(one):
        name = Path(unquote(urlsplit(one).path)).name or "audio"
        yield one, Path(name)
        return
    path = Path(one)
    if path.is_dir():
        yield from _inside(path)
    elif path.exists():
        yield str(path.resolve()), Path(path.name)
    elif glob.has_magic(one) and (hits := sorted(glob.glob(one, recursive=True))):
        for hit in hits:
            yield from _meant(hit)
    else:
        raise FileNotFoundError(f"there is no file, folder or match for {one}")


def _inside(folder: Path) -> Iterator[tuple[str, Path]]:
    """Below it too; the folders are kept in the output."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield str(path.resolve()), path.relative_to(folder)
