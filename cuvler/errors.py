"""Exceptions for errors that the user can correct."""

from cuvler.image_status import ImageStatus
from cuvler.logs import printable


class CuvlerError(Exception):
    """An error that the user can correct; the message names the file or key, and the fix.

    The command line prints the message without a traceback and exits with status 1.

    Attributes:
        parameter: the library's parameter that the message is about, if it is about one; the
            command line adds the option.
    """

    def __init__(self, message: str, *, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class ConfigError(CuvlerError):
    """The configuration holds an unknown key or a value that is not allowed."""


class DataError(CuvlerError):
    """A file is missing or damaged, or does not match the files used with it."""


class ImageError(CuvlerError):
    """One image cannot be used; the message is one line.

    Attributes:
        status: ``missing``, ``unreadable`` or ``wrong_size``.
    """

    def __init__(self, status: ImageStatus, message: str) -> None:
        super().__init__(printable(message))
        self.status = status
