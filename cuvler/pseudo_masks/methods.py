"""The registry of methods of making pseudo-masks, and what a method declares.

Methods of other packages are entry points of the group ``cuvler.methods``. Importing this is
light: a method's module is imported when the method is asked for.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cuvler.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cuvler.eigenvectors.needs import Need
    from cuvler.pseudo_masks.record import PseudoMask

GROUP = "cuvler.methods"
DEFAULT = "votecut"
_BUILT_IN = (
    EntryPoint("votecut", "cuvler.pseudo_masks.vote_cut:VoteCut", GROUP),
    EntryPoint("maskcut", "cuvler.pseudo_masks.mask_cut:MaskCut", GROUP),
)
# Settings that all methods share that have them: keys of the config's section `pseudo_masks`.
SHARED_SETTINGS = ("crf",)
# Fields that name a method's backbones: a list of them, or a single one.
BACKBONE_FIELDS = ("backbones", "backbone")


def _no_repeats(names: tuple[Any, ...]) -> tuple[Any, ...]:
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"named more than once: {', '.join(map(str, repeated))}")
    return names


# Types of settings.
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]*")
Name = Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
Distinct = Field(min_length=1, json_schema_extra={"uniqueItems": True})
NoRepeats = AfterValidator(_no_repeats)
Backbones = Annotated[tuple[Name, ...], Distinct, NoRepeats]


class Method(BaseModel):
    """A method of making pseudo-masks: its fields are its settings.

    A field's type and constraints are its check, its description is its help. ``backbones`` (a
    tuple of names) or ``backbone`` (one name) is the field of the backbones that the method works
    with; a method without either works with the image alone. Instances go to worker processes.

    Attributes:
        name: in configs, paths and files; the name of the entry point.
        scored: whether scores differ between the masks of an image.
        rate: images a second of one core, and how that was measured; None where it is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    scored: ClassVar[bool] = True
    rate: ClassVar[tuple[float, str] | None] = None

    def needs(self) -> Mapping[str, "Need"]:
        """Give what must be extracted: backbone -> vectors; empty where the image is enough."""
        return {}

    def masks(
        self, image: "Image.Image", vectors: Mapping[str, "NDArray[np.float32]"]
    ) -> list["PseudoMask"]:
        """Make an image's masks, best first.

        Args:
            image: RGB.
            vectors: backbone -> (k, h, w), what :meth:`needs` asks for.
        """
        raise NotImplementedError

    def proposals(self, vectors: Mapping[str, "NDArray[np.float32]"]) -> "NDArray[np.bool_] | None":
        """Give the (n, h, w) candidates that the masks are made of, for the report; or None."""
        return None

    @property
    def masks_per_image(self) -> float:
        """How many masks an image has, about; plans the size of files."""
        return 5

    def info(self) -> dict[str, Any]:
        """Give the settings that decide the masks, as JSON values, without the backbones."""
        return self.model_dump(mode="json", exclude=set(BACKBONE_FIELDS))

    @classmethod
    def settings(cls) -> list[str]:
        """Name the settings, without the backbones."""
        return [name for name in cls.model_fields if name not in BACKBONE_FIELDS]


def method_names() -> tuple[str, ...]:
    """Name the methods, the built-in ones first."""
    return tuple(_registered())


@cache
def _registered() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in (*_BUILT_IN, *sorted(entry_points(group=GROUP), key=lambda entry: entry.name)):
        if not _NAME.fullmatch(entry.name) or entry.name in SHARED_SETTINGS:
            raise ConfigError(
                f"method {entry.name!r}: {entry.value} needs another name, of letters, digits, "
                f"_ and -, and not that of a setting such as pseudo_masks.{SHARED_SETTINGS[0]}"
            )
        known = found.setdefault(entry.name, entry)
        if known.value != entry.value:
            raise ConfigError(
                f"method {entry.name!r} is registered twice, as {known.value} and {entry.value}; "
                "rename one, or uninstall its package"
            )
    return found


@cache
def find_method(name: str) -> type[Method]:
    """Import a method.

    Raises:
        ConfigError: there is none of this name, or its entry point is wrong.
    """
    entry = _registered().get(name)
    if entry is None:
        raise ConfigError(f"method {name!r} is not known; known: {', '.join(method_names())}")
    try:
        method = entry.load()
    except (AttributeError, ImportError) as error:
        raise ConfigError(f"method {name!r}: cannot import {entry.value} ({error})") from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise ConfigError(f"method {name!r}: {entry.value} is not a subclass of Method")
    if getattr(method, "name", None) != name:
        raise ConfigError(f"method {name!r}: {entry.value} must have name = {name!r}")
    return method


def make_method(
    name: str,
    settings: Mapping[str, Any],
    *,
    backbones: Sequence[str] | None = None,
    where: str | None = None,
) -> Method:
    """Make a method with settings; those not given have their defaults.

    Args:
        name: of the method.
        settings: by name.
        backbones: that it works with; by default those of ``settings``, or else its own.
        where: what to call the place of the settings in messages; by default the method.

    Raises:
        ConfigError: names what is wrong: the method, a setting and its value, or the number of
            backbones.
    """
    method = find_method(name)
    chosen = {} if backbones is None else _choose(method, backbones)
    try:
        return method(**{**settings, **chosen})
    except ValidationError as error:
        raise ConfigError("; ".join(_mistakes(error, method, where or name))) from error


def method_of(info: Mapping[str, Any]) -> Method | None:
    """Make the method that a file's ``info`` records; None where it is not known here."""
    name = info.get("method")
    if name not in method_names():
        return None
    settings = {key: info[key] for key in find_method(name).settings() if key in info}
    return make_method(name, settings, backbones=info["backbones"])


def _choose(method: type[Method], backbones: Sequence[str]) -> dict[str, Any]:
    """Give the settings that make a method work with certain backbones."""
    named = ", ".join(backbones) or "none"
    if "backbones" in method.model_fields:
        return {"backbones": tuple(backbones)}
    if "backbone" not in method.model_fields:
        if backbones:
            raise ConfigError(f"{method.name} works without backbones, not with {named}")
        return {}
    if len(backbones) != 1:
        raise ConfigError(f"{method.name} works with one backbone, not with {named}")
    return {"backbone": backbones[0]}


def _mistakes(error: ValidationError, method: type[Method], where: str) -> Iterable[str]:
    for mistake in error.errors():
        key = ".".join([where, *map(str, mistake["loc"])])
        if mistake["type"] == "extra_forbidden":
            yield f"{key}: no such setting; known: {', '.join(method.model_fields)}"
        else:
            reason = mistake["msg"].removeprefix("Value error, ")
            yield f"{key}: {mistake['input']!r} is not allowed ({reason})"
