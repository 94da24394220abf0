"""The package sources configured for the user's pip and uv."""

import configparser
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class IndexSettings:
    """Package sources in order of precedence; empty ``indexes`` means the tools' default."""

    indexes: tuple[str, ...] = ()
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()


def read_index_settings(environ: Mapping[str, str] = os.environ) -> IndexSettings:
    """Read the index settings of uv and pip from the environment and their config files.

    A build backend does not see its caller's command line (``--index-url``), only environment
    variables and files.
    """
    pip = _pip_options(environ)
    uv = _uv_options(environ)

    def words(*values: str | None) -> tuple[str, ...]:
        # pip separates values by white space, uv by commas; uv allows "name=url" for an index.
        found = " ".join(value for value in values if value).replace(",", " ").split()
        return tuple(dict.fromkeys(_without_name(word) for word in found))

    return IndexSettings(
        indexes=words(
            environ.get("UV_DEFAULT_INDEX"),
            environ.get("UV_INDEX_URL"),
            environ.get("PIP_INDEX_URL"),
            uv["default"],
            pip.get("index-url"),
        ),
        extra_indexes=words(
            environ.get("UV_INDEX"),
            environ.get("UV_EXTRA_INDEX_URL"),
            environ.get("PIP_EXTRA_INDEX_URL"),
            uv["extra"],
            pip.get("extra-index-url"),
        ),
        find_links=words(
            environ.get("UV_FIND_LINKS"),
            environ.get("PIP_FIND_LINKS"),
            uv["find-links"],
            pip.get("find-links"),
        ),
        trusted_hosts=words(
            environ.get("UV_INSECURE_HOST"),
            environ.get("PIP_TRUSTED_HOST"),
            pip.get("trusted-host"),
        ),
    )


def _without_name(word: str) -> str:
    name, equals, url = word.partition("=")
    return url if equals and name.isidentifier() else word


def _config_home(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME", "~")).expanduser()
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _pip_options(environ: Mapping[str, str]) -> dict[str, str]:
    """Read pip's config files in pip's order: global, user, ``PIP_CONFIG_FILE``."""
    home = Path(environ.get("HOME", "~")).expanduser()
    files = [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        _config_home(environ) / "pip" / "pip.conf",
    ]
    if named := environ.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    parser = configparser.RawConfigParser()
    parser.read(files, encoding="utf-8")
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            options.update(parser.items(section))
    return options


def _uv_options(environ: Mapping[str, str]) -> dict[str, str]:
    """Read uv's user and system config files, or only ``UV_CONFIG_FILE`` if set."""
    if named := environ.get("UV_CONFIG_FILE"):
        files = [Path(named)]
    else:
        files = [_config_home(environ) / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    default: list[str] = []
    extra: list[str] = []
    find_links: list[str] = []
    for file in files:
        if not file.is_file():
            continue
        options = tomllib.loads(file.read_text(encoding="utf-8"))
        for scope in (options, options.get("pip", {})):
            default += _listed(scope.get("index-url"))
            extra += _listed(scope.get("extra-index-url"))
            find_links += _listed(scope.get("find-links"))
        for index in options.get("index", []):
            (default if index.get("default") else extra).append(index["url"])
    return {
        "default": " ".join(default),
        "extra": " ".join(extra),
        "find-links": " ".join(find_links),
    }


def _listed(value: Any) -> Iterable[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
