"""A setting as keys of the workflow's config."""

from typing import Any

import yaml

from cuvler.eigenvectors.backbones import BACKBONES, BackboneSpec
from cuvler.pseudo_masks.methods import SHARED_SETTINGS
from cuvler.tuning.grid import Setting

# Of a backbone's definition.
_KEYS = ("timm", "feature", "size", "layer", "tau", "eps")


def config_snippet(setting: Setting) -> str:
    """Return the part of a config that makes masks with a setting, as YAML.

    It has all settings of the method itself, also those at their defaults, because a config into
    which it is pasted may have others. A comment says which key chooses the method: the recipe is
    the user's.
    """
    method = setting.method
    own = method.model_dump(mode="json", exclude=set(SHARED_SETTINGS))
    shared = method.model_dump(mode="json", include=set(SHARED_SETTINGS), exclude_defaults=True)
    definitions = {spec.name: _definition(spec, setting.tau) for spec in setting.specs}
    config: dict[str, Any] = {"pseudo_masks": {**shared, method.name: own}}
    if any(definitions.values()):
        used = {name: definition for name, definition in definitions.items() if definition}
        config = {"eigenvectors": {"definitions": used}} | config
    comment = f"# with recipes: {{cuvler: {{method: {method.name}}}}}\n"
    return comment + yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100)


def _definition(spec: BackboneSpec, tau: float | None) -> dict[str, Any]:
    """Return the settings of a backbone that differ from those of the table."""
    values = BackboneSpec(spec.name, None, "pixels", size=0, patch=spec.patch)
    base = BACKBONES.get(spec.name, values)
    differing = {
        key: getattr(spec, key) for key in _KEYS if getattr(spec, key) != getattr(base, key)
    }
    return differing if tau is None else differing | {"tau": tau}
