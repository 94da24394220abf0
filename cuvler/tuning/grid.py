"""The settings that are tried: methods, their own settings, backbones, sizes and tau."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from cuvler.eigenvectors.backbones import BackboneSpec
from cuvler.errors import ConfigError
from cuvler.pseudo_masks.methods import Method, find_method, make_method

# From each backbone's own tau: more edges below it, fewer above.
_TAU_STEPS = (-0.1, 0.0, 0.15, 0.35)
_LARGEST_TAU = 0.95


@dataclass(frozen=True)
class Setting:
    """One way of finding an image's objects.

    Attributes:
        method: the method with its settings.
        specs: the backbones, each with its size.
        tau: of the patches' graph; None for each backbone's own, or if the method has no graph.
    """

    method: Method
    specs: tuple[BackboneSpec, ...]
    tau: float | None

    @property
    def has_graph(self) -> bool:
        """Whether tau matters."""
        return any(need.has_graph for need in self.method.needs().values())

    @property
    def backbones(self) -> str:
        """The backbones and their sizes, in words."""
        sizes = dict.fromkeys(f"{spec.size} px" for spec in self.specs)
        return f"{' + '.join(spec.name for spec in self.specs)}, {' and '.join(sizes)}"

    @property
    def tau_label(self) -> str:
        """The tau, in words."""
        if self.tau is not None:
            return f"tau {self.tau:g}"
        return "each backbone's tau" if self.has_graph else "without tau"


@dataclass(frozen=True)
class Row:
    """Settings that differ in tau alone.

    Attributes:
        label: the method, and its settings where several are tried.
        settings: by ascending tau.
    """

    label: str
    settings: tuple[Setting, ...]

    @property
    def backbones(self) -> str:
        """The backbones and their sizes, in words."""
        return self.settings[0].backbones


def settings_grid(
    methods: Sequence[str],
    specs: Sequence[BackboneSpec],
    *,
    sizes: Sequence[int] = (),
    taus: Sequence[float] = (),
    values: Mapping[str, Sequence[Any]] | None = None,
) -> list[Row]:
    """Return the settings to try, row by row; none is there twice.

    Each backbone is tried alone, and all together by the methods that take several.

    Args:
        methods: names in the registry.
        specs: the backbones.
        sizes: sides in pixels, for each backbone rounded to a multiple of its patch; by default
            each backbone's own.
        taus: by default four around each backbone's own.
        values: values to try of the methods' settings, by name; each method takes those it has.
            By default its ``variants``.

    Raises:
        ConfigError: a method is unknown, a value is not allowed, or no method takes it.
    """
    _require_known(methods, values or {})
    found: dict[tuple[str, str], Row] = {}
    for group in _groups(specs, sizes):
        for name in methods:
            if len(group) > 1 and "backbones" not in find_method(name).model_fields:
                continue
            names = [spec.name for spec in group]
            variants = [make_method(name, v, backbones=names) for v in _variants(name, values)]
            for label, method in zip(_labels(variants), variants, strict=True):
                row = Row(label, tuple(_with_taus(method, group, taus)))
                found.setdefault((row.backbones, row.label), row)
    if taus and not any(row.settings[0].has_graph for row in found.values()):
        raise ConfigError(f"none of the methods {', '.join(methods)} has a tau", parameter="tau")
    return list(found.values())


def _require_known(methods: Sequence[str], values: Mapping[str, Sequence[Any]]) -> None:
    for name in values:
        if not any(name in find_method(method).settings() for method in methods):
            raise ConfigError(f"none of the methods {', '.join(methods)} has the setting {name!r}")


def _groups(
    specs: Sequence[BackboneSpec], sizes: Sequence[int]
) -> Iterator[tuple[BackboneSpec, ...]]:
    wanted: Sequence[int | None] = sizes or [None]
    for size in wanted:
        resized = tuple(spec if size is None else _resized(spec, size) for spec in specs)
        yield from ((spec,) for spec in resized)
        if len(resized) > 1:
            yield resized


def _resized(spec: BackboneSpec, size: int) -> BackboneSpec:
    # A normalized cut needs more than one patch.
    return replace(spec, size=max(2, round(size / spec.patch)) * spec.patch)


def _variants(name: str, values: Mapping[str, Sequence[Any]] | None) -> list[dict[str, Any]]:
    """Return the settings of a method to try: the product of the values, or its own variants."""
    method = find_method(name)
    own = {key: tried for key, tried in (values or {}).items() if key in method.settings()}
    if not own:
        return [dict(variant) for variant in method.variants]
    return [dict(zip(own, chosen, strict=True)) for chosen in product(*own.values())]


def _labels(methods: Sequence[Method]) -> list[str]:
    """Name each method, with the settings in which they differ."""
    shown = [method.model_dump(mode="json") for method in methods]
    differing = [key for key in shown[0] if any(each[key] != shown[0][key] for each in shown)]
    return [
        ", ".join(filter(None, [method.name, *(_in_words(key, values[key]) for key in differing)]))
        for method, values in zip(methods, shown, strict=True)
    ]


def _in_words(key: str, value: Any) -> str:
    words = key.replace("_", " ")
    if isinstance(value, bool):
        return words if value else ""
    return f"{words} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _with_taus(
    method: Method, specs: tuple[BackboneSpec, ...], taus: Sequence[float]
) -> Iterator[Setting]:
    setting = Setting(method, specs, None)
    if not setting.has_graph:
        return iter([setting])
    own = {spec.graph()["tau"] for spec in specs}
    if not taus and len(own) > 1:
        return iter([setting])
    around = (round(tau + step, 3) for tau in own for step in _TAU_STEPS)
    wanted = taus or [tau for tau in around if tau <= _LARGEST_TAU]
    return (replace(setting, tau=tau) for tau in sorted(set(wanted)))
