"""The desktop off, now and at boot. Off unless the fleet file asks for it.

Why: GNOME and its greeter take some hundred MiB to more than a GiB of the one memory that CPU and GPU of a Spark share,
and run on the GPU that jobs want. A host that everybody reaches by SSH needs neither. `absent` brings both back.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings.headless import HeadlessSettings
from sparkhost.base.resource import Resource
from sparkhost.headless.desktop import DesktopBefore, Headless


def apply(settings: HeadlessSettings) -> Sequence[Resource]:
    """What was there is noted first; nothing but the display manager is stopped."""
    return (Headless(),)


def remove(settings: HeadlessSettings) -> Sequence[Resource]:
    """The default target and the display manager as they were; what others have changed since stays."""
    return (DesktopBefore(),)
