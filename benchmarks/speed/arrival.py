"""A plugin that writes down when training has done a step, and what has been imported by then."""

import json
import sys
import time
from dataclasses import dataclass

from pydantic import Field

from ptm_plus import Event, PluginInfo, Section, hookimpl


class ArrivalSettings(Section):
    """``[plugin.arrival]``."""

    file: str = Field(description="Gets a line of JSON per step, and one at the end.")
    watched: tuple[str, ...] = Field((), description="Packages to look for.")


@dataclass
class Arrival:
    """Writes ``{"time": …, "cpu": …, "imported": […]}``."""

    settings: ArrivalSettings
    instance: str

    @hookimpl
    def ptm_event(self, event: Event) -> None:
        """Look at the clock, and at what is there."""
        if event.kind in ("after_step", "train_end"):
            imported = [name for name in self.settings.watched if name in sys.modules]
            found = {"time": time.time(), "cpu": time.process_time(), "imported": imported}
            with open(self.settings.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


plugin = PluginInfo(
    name="arrival", summary="When the first step was done", hooks=Arrival, settings=ArrivalSettings
)
