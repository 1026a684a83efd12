"""Being asked to stop: by a signal, or by the end of the process that started this one."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)

FOLLOWING = "PTM_PLUS_ENDS_WITH_STDIN"
"""Environment variable of a process that stops when its standard input is closed."""

_ONE_PRESS = 2.0
"""Seconds in which a second Ctrl-C is the same one: launchers pass on what a terminal sends too."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a stop was asked for; a later Ctrl-C interrupts.

    Outside the main thread signals cannot be caught, and the function always says no.
    """
    asked: list[float] = []

    def remember(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and number == signal.SIGINT and now - asked[0] > _ONE_PRESS:
            raise KeyboardInterrupt
        asked.append(now)

    with _handled(remember):
        yield lambda: bool(asked)


@contextmanager
def interrupting_signals() -> Iterator[None]:
    """Let every signal that asks for a stop interrupt as Ctrl-C does: nothing is half-written."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def follow_starter() -> None:
    """Ask this process to stop once its starter has ended, also when that was killed.

    The starter holds the other end of standard input and sets ``FOLLOWING``.
    """
    if os.environ.pop(FOLLOWING, ""):
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    os.read(sys.stdin.fileno(), 1)  # nobody ever writes: it returns when the other end is closed
    os.kill(os.getpid(), signal.SIGTERM)
