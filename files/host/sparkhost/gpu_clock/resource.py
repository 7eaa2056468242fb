"""Whether a clock can be limited here at all."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar

from sparkhost.base.resource import Check, Context, Refused
from sparkhost.sampler.nvml import LIBRARY


@dataclass(frozen=True)
class HasNvml(Check):
    """Refuses where there is no NVML. Loads the library, and does not call it, which can hang."""

    kind: ClassVar[str] = "has_nvml"
    is_basis: ClassVar[bool] = True
    library: str = LIBRARY

    def check(self, context: Context) -> None:
        try:
            ctypes.CDLL(self.library)
        except OSError as error:
            raise Refused(
                f"{self.library} cannot be loaded, so nothing can limit the GPU's clock: install NVIDIA's driver, or "
                "set gpu_clock.state to absent"
            ) from error
