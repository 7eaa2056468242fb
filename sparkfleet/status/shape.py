"""What a host may say, checked where it comes in: numbers within sense, texts of one line, lists with an end.

What a line does not name stays as it was: the reader says what has changed.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sparkfleet import foreign

LINE = 1 << 17
"""Bytes of a line that are taken."""
VALUES = 24_000
"""Values in a line: a day of minutes has five times 1440 of them."""
SIZE_MOST = 1 << 50

Size = Annotated[int, Field(ge=0, le=SIZE_MOST)]
Degrees = Annotated[int, Field(ge=-60, le=250)]
Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
Word = Annotated[str, AfterValidator(lambda text: foreign.line(text, 120))]
Text = Annotated[str, AfterValidator(lambda text: foreign.line(text, 400))]


class NotAStatus(ValueError):
    """A line that is none of the reader's. One line."""


class Part(BaseModel):
    """Newer readers may say more than is known here."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Memory(Part):
    """Bytes; see `sparkhost.status.parts.memory`."""

    total: Size = 0
    available: Size = 0
    free: Size = 0
    cpu: Size = 0
    gpu: Size | None = None
    gpu_own: Size = 0


class Gpu(Part):
    """Clocks in MHz."""

    name: Word = ""
    clock: Annotated[int, Field(ge=0, le=100_000)] | None = None
    most: Annotated[int, Field(ge=0, le=100_000)] | None = None
    temperature: Degrees | None = None


class Floor(Part):
    """`problem`: why nobody acts below it."""

    term: Size | None = None
    kill: Size | None = None
    problem: Text = ""


class Job(Part):
    """A job of the launcher."""

    id: Word
    owner: Word
    name: Word = ""
    promise: Size | None = None
    cpu: Size = 0
    gpu: Size | None = None

    @property
    def use(self) -> int:
        return self.cpu + (self.gpu or 0)


class Owner(Part):
    """What somebody holds."""

    owner: Word
    cpu: Size = 0
    gpu: Size = 0


class Waiting(Part):
    """How many jobs of somebody wait."""

    owner: Word
    jobs: Annotated[int, Field(ge=0, le=100_000)]


class Event(Part):
    """What the watchdog did."""

    at: Time
    event: Word
    name: Word = ""
    owner: Word = ""
    size: Size = 0
    reason: Text = ""
    dry_run: bool = False
    text: Text = ""
    why: Annotated[list[Text], Field(max_length=16)] = []


class Release(Part):
    """What was last deployed, and the system."""

    version: Word = ""
    at: Word = ""
    result: Word = ""
    system: Word = ""
    kernel: Word = ""


class Link(Part):
    """A port of an RDMA device."""

    name: Word
    state: Word = ""
    gbits: Annotated[int, Field(ge=0, le=100_000)] | None = None


Minute = tuple[Time, Size, Size, Size | None]
"""Time, available, CPU side, GPU side."""


class HostSays(Part):
    """All that a host says of itself."""

    v: int = 0
    at: Time = 0.0
    up: Time | None = None
    memory: Memory = Memory()
    floor: Floor = Floor()
    release: Release = Release()
    jobs: Annotated[list[Job], Field(max_length=64)] = []
    owners: Annotated[list[Owner], Field(max_length=16)] = []
    waiting: Annotated[list[Waiting], Field(max_length=16)] = []
    gpus: Annotated[list[Gpu], Field(max_length=8)] = []
    temperature: Degrees | None = None
    kill: Event | None = None
    events: Annotated[list[Event], Field(max_length=10)] = []
    events_readable: bool = False
    warnings: Annotated[list[Text], Field(max_length=8)] = []
    reboot: Text = ""
    links: Annotated[list[Link], Field(max_length=8)] = []
    cost: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    history: Annotated[list[Minute], Field(max_length=1440)] = []

    @property
    def warmest(self) -> int | None:
        """Of all sensors, °C."""
        found = [gpu.temperature for gpu in self.gpus if gpu.temperature is not None]
        return max([*found, *([self.temperature] if self.temperature is not None else [])], default=None)


VERSION = 1


def merged(before: HostSays | None, line: bytes) -> HostSays:
    """A host's state after another line of it. `history` is what this line brings.

    Raises:
        NotAStatus: it is no line of the reader's, or has figures that cannot be.
    """
    try:
        value = foreign.loads(line)
        if not isinstance(value, dict):
            raise NotAStatus("it says something else than the reader")
        if value.get("v") != VERSION:
            said = value.get("problem")
            raise NotAStatus(foreign.line(said, 200) if isinstance(said, str) else "its reader is another version's")
        told = HostSays.model_validate(_tuples(value))
    except foreign.NotPlain as error:
        raise NotAStatus(str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(foreign.line(str(part), 40) for part in first["loc"][:4])
        raise NotAStatus(f"{where}: {foreign.line(first['msg'], 100)}") from error
    if before is None:
        return told
    named = {name: getattr(told, name) for name in told.model_fields_set}
    return before.model_copy(update={**named, "history": told.history})


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where strict types want tuples."""
    history = value.get("history")
    if isinstance(history, list):
        value = {**value, "history": [tuple(one) if isinstance(one, list) else one for one in history]}
    return value
