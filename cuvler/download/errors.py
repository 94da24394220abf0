"""Why a download failed; :func:`cuvler.download.download` makes a message for the user of it."""


class FetchError(Exception):
    """The file could not be had; the message says why."""
