"""The exception of failed downloads, which callers turn into a DataError."""


class FetchError(Exception):
    """A download failed; the message is the reason."""
