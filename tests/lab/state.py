"""What one host's directory remembers between two runs of the lab."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab.errors import LabError


@dataclass
class State:
    """The host's choices, the image its disk stands on, and its saved states (tag -> qemu fingerprint)."""

    suite: str | None = None
    arch: str | None = None
    image: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read it; a missing file is a new host. Raises LabError on a damaged one."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise LabError(f"{path} is damaged ({error}): delete the host and bring it up again") from error

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1) + "\n")
        fresh.rename(path)
