"""The pseudo-mask method interface and the registry of methods.

Other packages register methods as entry points in the group ``cuvler.methods``. This module is
cheap to import: a method's module is imported on first use.
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
    EntryPoint("agglomerative", "cuvler.pseudo_masks.agglomerative:Agglomerative", GROUP),
)
# Settings with one value for all methods that have them: keys of the config section
# `pseudo_masks`.
SHARED_SETTINGS = ("crf",)
# Fields with a method's backbone names: a tuple, or a single name.
BACKBONE_FIELDS = ("backbones", "backbone")


def _no_repeats(names: tuple[Any, ...]) -> tuple[Any, ...]:
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"named more than once: {', '.join(map(str, repeated))}")
    return names


# Field types for settings.
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]*")
Name = Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
Distinct = Field(min_length=1, json_schema_extra={"uniqueItems": True})
NoRepeats = AfterValidator(_no_repeats)
Backbones = Annotated[tuple[Name, ...], Distinct, NoRepeats]


class Method(BaseModel):
    """Base class of pseudo-mask methods. The fields are the settings.

    A field's type and constraints validate the setting; its description is the option's help.
    The field ``backbones`` (a tuple of names) or ``backbone`` (one name) selects the backbones; a
    method with neither uses only the image. Instances are pickled to worker processes.

    Attributes:
        name: name in configs, paths and files; equal to the entry point's name.
        scored: whether the masks of an image have different scores.
        rate: images per second on one core, and how it was measured; None if unknown.
        added: settings that the published method does not have; :meth:`info` leaves them out at
            their defaults.
        variants: settings that `cuvler tune` tries, unless it is given others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    scored: ClassVar[bool] = True
    rate: ClassVar[tuple[float, str] | None] = None
    added: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def needs(self) -> Mapping[str, "Need"]:
        """Return the vectors to extract, by backbone; empty if the image is enough."""
        return {}

    def masks(
        self, image: "Image.Image", vectors: Mapping[str, "NDArray[np.float32]"]
    ) -> list["PseudoMask"]:
        """Compute an image's masks, best first.

        Args:
            image: RGB.
            vectors: backbone -> (k, h, w), the vectors that :meth:`needs` returns.
        """
        raise NotImplementedError

    def proposals(self, vectors: Mapping[str, "NDArray[np.float32]"]) -> "NDArray[np.bool_] | None":
        """Return the candidate masks (n, h, w), for the report; None if the method has none."""
        return None

    @property
    def masks_per_image(self) -> float:
        """Approximate number of masks per image, for estimates of file sizes."""
        return 5

    def info(self) -> dict[str, Any]:
        """Return the settings that determine the masks, as JSON values, without the backbones."""
        fields = type(self).model_fields
        at_default = {key for key in self.added if getattr(self, key) == fields[key].default}
        return self.model_dump(mode="json", exclude={*BACKBONE_FIELDS, *at_default})

    @classmethod
    def settings(cls) -> list[str]:
        """Return the names of the settings, without the backbones."""
        return [name for name in cls.model_fields if name not in BACKBONE_FIELDS]


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, the built-in ones first."""
    return tuple(_registered())


@cache
def _registered() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in (*_BUILT_IN, *sorted(entry_points(group=GROUP), key=lambda entry: entry.name)):
        if not _NAME.fullmatch(entry.name) or entry.name in SHARED_SETTINGS:
            raise ConfigError(
                f"method {entry.name!r}: rename the entry point {entry.value}: a name has "
                "letters, digits, _ and -, and is not that of a setting such as "
                f"pseudo_masks.{SHARED_SETTINGS[0]}"
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
    """Return a method's class, importing its module.

    Raises:
        ConfigError: no method has this name, or its entry point is invalid.
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
    """Return a method with the given settings, and defaults for the others.

    Args:
        name: the method's name.
        settings: values by name.
        backbones: the backbones to use; by default those in ``settings``, else the method's own.
        where: prefix of the settings' names in messages; by default the method's name.

    Raises:
        ConfigError: the method is unknown, a setting is invalid, or the number of backbones does
            not fit. The message has the name and the value.
    """
    method = find_method(name)
    chosen = {} if backbones is None else _choose(method, backbones)
    try:
        return method(**{**settings, **chosen})
    except ValidationError as error:
        raise ConfigError("; ".join(_mistakes(error, method, where or name))) from error


def method_of(info: Mapping[str, Any]) -> Method | None:
    """Return the method recorded in a file's ``info``; None if it is not registered here."""
    name = info.get("method")
    if name not in method_names():
        return None
    settings = {key: info[key] for key in find_method(name).settings() if key in info}
    return make_method(name, settings, backbones=info["backbones"])


def _choose(method: type[Method], backbones: Sequence[str]) -> dict[str, Any]:
    """Return the settings that select these backbones."""
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
    found = error.errors()
    wrong_items = {mistake["loc"][:-1] for mistake in found}
    for mistake in found:
        # Items that are not valid are not counted: the list itself may be long enough.
        if mistake["type"] == "too_short" and mistake["loc"] in wrong_items:
            continue
        key = ".".join([where, *map(str, mistake["loc"])])
        if mistake["type"] == "extra_forbidden":
            yield f"{key}: no such setting; known: {', '.join(method.model_fields)}"
        else:
            reason = mistake["msg"].removeprefix("Value error, ")
            yield f"{key}: {mistake['input']!r} is not allowed ({reason})"
