"""Read config files and check the merged config."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from cuvler.config.checks import mistakes
from cuvler.config.messages import describe
from cuvler.config.model import Settings, settings_model
from cuvler.errors import ConfigError
from cuvler.files import StrPath

# Read by every run, in this order: the Snakefile says the same.
CONFIG_FILES = (Path("config/datasets.yaml"), Path("config/config.yaml"))


def check(config: Mapping[str, Any]) -> Settings:
    """Check a config, the values first and then the names that they refer to.

    Raises:
        ConfigError: names the key, the value, and what is allowed; all mistakes at once.
    """
    model = settings_model()
    try:
        # As JSON, in which a list is a tuple to pydantic, but text is not a number.
        settings = model.model_validate_json(json.dumps(config, default=str), strict=True)
    except ValidationError as error:
        wrong = describe(error, json_schema(model))
    else:
        wrong = mistakes(settings)
    if wrong:
        raise ConfigError("wrong settings:\n" + "\n".join(f"  {line}" for line in wrong))
    return settings


def read(paths: Sequence[StrPath]) -> Settings:
    """Read config files over those of every run, and check them.

    Raises:
        ConfigError: a file is missing or not YAML of settings, or settings are wrong.
    """
    config: dict[str, Any] = {}
    for path in [*CONFIG_FILES, *paths]:
        config = _merge(config, _load(path))
    return check(config)


def require_config_files() -> None:
    """Check that the config files of every run are there and are mappings.

    Snakemake reads them too, but its messages do not name the file.

    Raises:
        ConfigError: names the file, and where to start Snakemake if it is missing.
    """
    for path in CONFIG_FILES:
        if not path.exists():
            raise ConfigError(
                f"{path}: no such file in {Path.cwd()}; start Snakemake in the folder that "
                "contains workflow/ and config/, or give that folder with --directory"
            )
        _load(path)


def _load(path: StrPath) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read()
        try:
            settings = json.loads(text)
        except ValueError:
            settings = yaml.safe_load(text)
    except FileNotFoundError:
        message = f"{path}: no such file; run this in the folder in which Snakemake runs"
        raise ConfigError(message) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({error}){_tabs(error)}") from error
    if settings is None:
        raise ConfigError(
            f"{path}: has no settings, and Snakemake refuses empty config files; write at least "
            "one, such as: results: results"
        )
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: not a mapping (key: value) but {settings!r:.80}")
    return settings


def _tabs(error: Exception) -> str:
    return "; indent by spaces instead of tabs" if "'\\t'" in str(error) else ""


def _merge(config: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings key by key, as Snakemake merges config files."""
    merged = dict(config) if isinstance(config, Mapping) else {}
    for key, value in changes.items():
        is_section = isinstance(value, Mapping)
        merged[key] = _merge(merged.get(key, {}), value) if is_section else value
    return merged


class _Generator(GenerateJsonSchema):
    """Omits titles, which repeat the keys; constrains names of keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        for pattern, values in found.pop("patternProperties", {}).items():
            found |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        return found


@cache
def json_schema(model: type[Settings]) -> dict[str, Any]:
    """Return the JSON schema of the model."""
    return model.model_json_schema(schema_generator=_Generator)
