"""SIGTERM and Ctrl-C as requests to stop at the end of the step."""

from __future__ import annotations

import os
import signal
import threading

EXIT_CODE = {signal.SIGTERM: 0, signal.SIGINT: 130}


class StopRequest:
    """Context in which SIGTERM and SIGINT (Ctrl-C) are kept in `signal` instead of acting.

    A Ctrl-C after either of them exits at once with 130. The former handlers come back on exit.
    Off the main thread, where Python allows no handlers, the context does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> StopRequest:
        self._former = {}
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in EXIT_CODE}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal is not None and number == signal.SIGINT:
            os._exit(EXIT_CODE[signal.SIGINT])
        self.signal = self.signal or signal.Signals(number)
