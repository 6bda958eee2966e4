"""How the opener says no."""

from __future__ import annotations

from http import HTTPStatus


class Refused(Exception):
    """A request is not granted. The message goes to who asked, and into the journal."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)
