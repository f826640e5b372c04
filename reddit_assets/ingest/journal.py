"""What each subreddit's chain files were made from, so that the others are left alone."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from reddit_assets.corpus.oserrors import reading, writing

__all__ = ["Journal"]


class Journal:
    """What every subreddit was made from: a line each, the last one counts."""

    def __init__(self, path: Path, settings: str) -> None:
        self._path, self._settings = path, settings
        self._lines: dict[str, tuple[str, int]] = {}
        with suppress(FileNotFoundError):
            with reading(path):
                text = path.read_text("utf-8", "replace")
            for line in text.splitlines():
                # The last line of a killed process; a line less makes a subreddit again.
                with suppress(ValueError, TypeError):
                    place, digest, chunks = json.loads(line)
                    self._lines[place] = digest, chunks

    @property
    def places(self) -> list[str]:
        """Folders of the subreddits that have chain files."""
        return [place for place, (digest, _) in self._lines.items() if digest]

    def knows(self, place: str) -> bool:
        """Whether a subreddit was made before."""
        return place in self._lines

    def has(self, place: str, digest: str) -> bool:
        """Whether it was made from just this, with these settings."""
        return self._lines.get(place, ("", 0))[0] == f"{self._settings}-{digest}"

    def chunks(self, place: str) -> int:
        """How many chain files it has."""
        return self._lines.get(place, ("", 0))[1]

    def add(self, places: tuple[str, ...], digests: tuple[str, ...], chunks: list[int]) -> None:
        """Note subreddits that have been made; synced. Raises WriteError."""
        lines = []
        for place, digest, count in zip(places, digests, chunks, strict=True):
            self._lines[place] = f"{self._settings}-{digest}", count
            lines.append(json.dumps([place, *self._lines[place]]) + "\n")
        with writing(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def drop(self, place: str) -> None:
        """Forget a subreddit that is in no dump any more."""
        self._lines.pop(place, None)

    def compact(self) -> None:
        """Write one line for each subreddit. Raises WriteError."""
        temporary = self._path.with_suffix(".tmp")
        with writing(self._path), open(temporary, "w", encoding="utf-8") as file:
            for place in sorted(self._lines):
                file.write(json.dumps([place, *self._lines[place]]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
