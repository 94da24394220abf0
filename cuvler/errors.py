"""Errors whose message is meant for the person at the keyboard."""


class CuvlerError(Exception):
    """Something the user can mend; the message names the file or key and the fix.

    The command line prints the message without a traceback and exits with status 1.
    """


class ConfigError(CuvlerError):
    """The configuration holds an unknown key or a value that is not allowed."""


class DataError(CuvlerError):
    """A file is missing, damaged, or does not belong where it was found."""


class ImageError(CuvlerError):
    """One image cannot be used; ``status`` says why in a word fit for the accounting.

    The accounting's words: ``missing``, ``unreadable``.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
