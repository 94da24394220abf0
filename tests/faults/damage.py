"""Ways of damaging a file, each at random but the same for the same seed."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]


def flipped_bit(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def zeroed_block(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice([16, 512, 4096]))
    return content[:start] + bytes(end - start) + content[end:]


def lost_block(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice([1, 16, 512]) :]


def appended_bytes(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice([1, 16, 512]))


def changed_digit(content: bytes, rng: random.Random) -> bytes:
    """Of a text: another digit in place of one."""
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flipped_bit(content, rng)
    changed = bytearray(content)
    place = rng.choice(places)
    changed[place] = rng.choice([byte for byte in range(48, 58) if byte != changed[place]])
    return bytes(changed)


def renamed_key(content: bytes, rng: random.Random) -> bytes:
    """Of a JSON: one letter more in a key of one object."""
    return _edit(content, rng, lambda found, key: {**_without(found, key), f"{key}w": found[key]})


def lost_key(content: bytes, rng: random.Random) -> bytes:
    return _edit(content, rng, _without)


def swapped_value(content: bytes, rng: random.Random) -> bytes:
    """Of a JSON: a value of another type in place of one."""
    values = [None, "", "1", [], {}, True, -1, 1e300, 0.5, [None], "text"]
    return _edit(content, rng, lambda found, key: {**found, key: rng.choice(values)})


def only_numbers_differ(one: bytes, other: bytes) -> bool:
    """Return whether two JSONs are the same but for the values of numbers."""
    number = rb"(?<=[:,\[])-?[0-9][-+.0-9eE]*(?=[,\]}])"
    return re.sub(number, b"0", one) == re.sub(number, b"0", other)


BYTES: tuple[Damage, ...] = (flipped_bit, flipped_bit, cut_off, zeroed_block, lost_block)
ANY: tuple[Damage, ...] = (*BYTES, appended_bytes)
TEXT: tuple[Damage, ...] = (*ANY, changed_digit)
JSON: tuple[Damage, ...] = (*TEXT, renamed_key, lost_key, swapped_value)


def _without(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != key}


def _edit(
    content: bytes,
    rng: random.Random,
    change: Callable[[dict[str, Any], str], dict[str, Any]],
) -> bytes:
    """Change one key of one object of a JSON."""
    document = json.loads(content)
    objects = [found for found in _objects(document) if found]
    chosen = rng.choice(objects)
    changed = change(chosen, rng.choice(sorted(chosen)))
    chosen.clear()
    chosen.update(changed)
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _objects(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict) else []
    return [*own, *(found for one in inner for found in _objects(one))]
