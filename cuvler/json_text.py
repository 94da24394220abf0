"""Decoding the text of JSON files, which is UTF-8, and naming other encodings."""

import codecs

# The first bytes of files that are given in place of a JSON.
_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}
_OTHERS = {b"\xff\xd8\xff": "JPEG image", b"\x89PNG": "PNG image", b"PAR1": "Parquet file"}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Utf8Decoder:
    """Decodes a file chunk by chunk, with or without a byte order mark."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._count = 0  # bytes before the current chunk

    def decode(self, chunk: bytes, *, final: bool = False) -> str:
        """Return the text of the next chunk; an incomplete character waits for the one after it.

        Raises:
            ValueError: the bytes are not UTF-8; the message names the likely encoding.
        """
        mark = b""
        if not self._count:
            _check_start(chunk)
            mark = codecs.BOM_UTF8 if chunk.startswith(codecs.BOM_UTF8) else mark
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk.removeprefix(mark), final)
        except UnicodeDecodeError as error:
            place = self._count - pending + len(mark) + error.start
            if error.reason == "unexpected end of data":
                raise ValueError(f"ends within a character, at byte {place}") from error
            raise ValueError(
                f"not UTF-8 text: byte {error.object[error.start]:#04x} at position {place}, as in "
                "latin-1 or Windows-1252; convert it to UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)"
            ) from error
        self._count += len(chunk)
        return text


def _check_start(chunk: bytes) -> None:
    for signature, name in _ARCHIVES.items():
        if chunk.startswith(signature):
            raise ValueError(f"a {name} archive; unpack it")
    for signature, name in _OTHERS.items():
        if chunk.startswith(signature):
            raise ValueError(f"a {name}")
    # JSON starts with ASCII, of which UTF-16 makes every second byte zero, UTF-32 three of four.
    if chunk.startswith(_UTF16) or 0 < chunk[:4].count(0) < 4:
        name = "UTF-32" if b"\0\0" in chunk[:4] else "UTF-16"
        raise ValueError(f"{name} text; convert it to UTF-8 (iconv -f {name} -t UTF-8)")


def decode_utf8(content: bytes) -> str:
    """Decode a whole file; see :class:`Utf8Decoder`.

    Raises:
        ValueError: the bytes are not UTF-8.
    """
    return Utf8Decoder().decode(content, final=True)
