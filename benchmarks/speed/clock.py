"""A plugin that writes down the CPU time of the process after every step.

The same clock ticks in the peer, see ``peer.py``: what is compared is the whole of either program.
"""

import json
import time
from dataclasses import dataclass

from pydantic import Field

from ptm_plus import Event, PluginInfo, Section, hookimpl


class ClockSettings(Section):
    """``[plugin.clock]``."""

    file: str = Field(description="Gets a line of JSON per step.")


@dataclass
class Clock:
    """Writes ``{"step": …, "cpu": …, "wall": …}``."""

    settings: ClockSettings
    instance: str

    @hookimpl
    def ptm_event(self, event: Event) -> None:
        """Take the time."""
        if event.kind == "after_step":
            took = {"step": event.step, "cpu": time.process_time(), "wall": time.perf_counter()}
            with open(self.settings.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(took) + "\n")


plugin = PluginInfo(
    name="clock", summary="CPU time after every step", hooks=Clock, settings=ClockSettings
)
