"""Options shared by several commands, each with one name, one type and a default help text.

A command can set whether the option is required, its default and its help.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cuvler.image_access import ALLOW_OUTSIDE_VARIABLE, MAX_PIXELS, MAX_PIXELS_VARIABLE
from cuvler.layout import DOWNLOADS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Named = tuple[tuple[str, Path], ...]
EXISTING = click.Path(exists=True, path_type=Path)


def named_path(value: str) -> tuple[str, Path]:
    """Split ``NAME=PATH`` into a pair; the path must exist."""
    name, equals, path = value.partition("=")
    if not (name and equals and path):
        raise click.BadParameter(f"{value!r} is not NAME=PATH")
    if not Path(path).exists():
        raise click.BadParameter(f"{path}: no such file")
    return name, Path(path)


def named_text(value: str) -> tuple[str, str]:
    """Split ``NAME=TEXT`` into a pair."""
    name, equals, text = value.partition("=")
    if not (name and equals and text):
        raise click.BadParameter(f"{value!r} is not NAME=TEXT")
    return name, text


def named_paths(
    flag: str, name: str, parameter: str = "", *, required: bool = False, help: str
) -> Decorator:
    """A repeatable option ``NAME=PATH``, passed to the command as ``parameter``."""
    names = [flag, parameter] if parameter else [flag]
    metavar = f"{name}=PATH"
    return click.option(
        *names, multiple=True, type=named_path, required=required, metavar=metavar, help=help
    )


def _default_or_required(default: object) -> dict[str, Any]:
    # To click, a default of None is a value, with which a required option may be missing.
    return {"required": True} if default is None else {"default": default}


# Inputs.


def listing(help: str = "The dataset's listing (.parquet).", *, required: bool = True) -> Decorator:
    """The listing of the images to process."""
    return click.option("--listing", type=Path, required=required, help=help)


def image_root(
    help: str = "The folder that file names are relative to.", *, required: bool = True
) -> Decorator:
    """The folder of a dataset's images."""
    return click.option("--image-root", type=Path, required=required, help=help)


def ground_truth(
    help: str = "COCO json of the ground truth.", *, required: bool = True
) -> Decorator:
    """The ground truth."""
    return click.option("--ground-truth", type=Path, required=required, help=help)


def dataset(*, required: bool) -> Decorator:
    """The dataset's name in the config."""
    text = "The dataset's name in the config, for messages."
    return click.option("--dataset", required=required, help=text)


def image_ids(*choices: str, help: str) -> Decorator:
    """The source of the image ids."""
    return click.option(
        "--ids", type=click.Choice(choices), default="order", show_default=True, help=help
    )


def shard() -> Decorator:
    """One of a listing's shards."""
    return click.option(
        "--shard", type=click.IntRange(min=0), required=True, help="The shard's number, from 0."
    )


def configfiles() -> Decorator:
    """Config files, as in Snakemake; for a :class:`ConfigFilesCommand`."""
    text = "Config files that override those in config/, as in snakemake: one or several .yaml."
    return click.option("--configfile", "configfiles", multiple=True, type=Path, help=text)


class ConfigFilesCommand(click.Command):
    """A command whose ``--configfile`` takes several files, as Snakemake's does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option for each .yaml that follows; other words are arguments."""
        words: list[str] = []
        in_files = False
        for word in args:
            if word.startswith("-"):
                in_files = word in ("--configfile", "--configfiles")
                words.append("--configfile" if in_files else word)
                continue
            is_another = in_files and words[-1] != "--configfile"
            if is_another and (in_files := word.endswith((".yaml", ".yml"))):
                words.append("--configfile")
            words.append(word)
        return super().parse_args(ctx, words)


# Models.


NO_DEFINITIONS = "{}"


def definitions() -> Decorator:
    """User-defined ViT backbones."""
    text = (
        "Settings by backbone as JSON, name -> timm, feature, size, layer, tau, eps: those that "
        "differ from a known backbone's, or a further ViT of timm."
    )
    return click.option("--definitions", default=NO_DEFINITIONS, help=text)


def detector(help: str = "A detector's folder, or a file with its weights.") -> Decorator:
    """A trained detector."""
    return click.option("--detector", type=Path, required=True, help=help)


def titles() -> Decorator:
    """Titles of datasets."""
    return click.option(
        "--title",
        "titles",
        multiple=True,
        type=named_text,
        metavar="DATASET=TITLE",
        help="The dataset's title in the heading.  [default: its name]",
    )


def detector_config(help: str = "", *, required: bool = False) -> Decorator:
    """A detectron2 config."""
    text = (
        "cutler_mask_rcnn, semi_supervised_10 ... or a .yaml, if the detector is a weights file.  "
        "[default: votecut_cad]"
    )
    return click.option("--detector-config", required=required, help=help or text)


def unpickle_sha256() -> Decorator:
    """The digest of a weights file that may be unpickled."""
    text = "SHA-256 of trusted legacy weights: permits unpickling that file, which runs code."
    return click.option("--unpickle-sha256", default="", help=text)


def sha256(help: str = "The expected SHA-256; another digest is an error.") -> Decorator:
    """The expected digest of a fetched file."""
    return click.option("--sha256", help=help)


# Thresholds and limits.


def tau() -> Decorator:
    """The threshold of the patches' graph."""
    text = (
        "Cosine similarity above which two patches are connected.  [default: the backbone's own, "
        "else 0.15]"
    )
    return click.option("--tau", type=click.FloatRange(-1, 1), help=text)


def score_threshold(
    default: float | None, help: str = "Smallest score of a prediction."
) -> Decorator:
    """The smallest score; required if ``default`` is None."""
    return click.option(
        "--score-threshold",
        type=click.FloatRange(0, 1),
        show_default=True,
        help=help,
        **_default_or_required(default),
    )


def detections_per_image(help: str) -> Decorator:
    """Largest number of predictions per image, detectron2's DETECTIONS_PER_IMAGE."""
    return click.option("--detections-per-image", type=click.IntRange(1), help=help)


def max_detections() -> Decorator:
    """Largest number of scored detections per image, COCO's ``maxDets``."""
    return click.option(
        "--max-detections",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Top-scoring detections per image used for AP (LVIS's own evaluation: 300).",
    )


def max_failed(help: str) -> Decorator:
    """Largest fraction of images that may fail."""
    return click.option(
        "--max-failed", type=click.FloatRange(0, 1), default=0.01, show_default=True, help=help
    )


def tta() -> Decorator:
    """Test-time augmentation."""
    text = "Test-time augmentation: average over sizes and horizontal flips."
    return click.option("--tta", is_flag=True, help=text)


def num_images(help: str, default: int = 8) -> Decorator:
    """The number of images on a page."""
    return click.option(
        "--num-images", type=click.IntRange(1), default=default, show_default=True, help=help
    )


def max_pixels() -> Decorator:
    """The largest image that is decoded, for this process and its workers."""
    return click.option(
        "--max-pixels",
        type=click.IntRange(1),
        metavar="N",
        expose_value=False,
        callback=_for_this_command(MAX_PIXELS_VARIABLE),
        help="Largest number of pixels of an image; larger ones are not decoded.  "
        f"[default: {MAX_PIXELS}]",
    )


def allow_outside() -> Decorator:
    """Permission to open images outside the image root, for this process and its workers."""
    return click.option(
        "--allow-outside",
        is_flag=True,
        expose_value=False,
        callback=_for_this_command(ALLOW_OUTSIDE_VARIABLE),
        help="Allow file names that lead out of the image root (absolute, or with ..).",
    )


def _for_this_command(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that sets an environment variable until the command ends."""

    def callback(context: click.Context, _parameter: click.Parameter, value: int | bool) -> None:
        if value:
            before = os.environ.get(variable)
            os.environ[variable] = str(int(value))
            context.call_on_close(lambda: _restore(variable, before))

    return callback


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


# Hardware.


def device() -> Decorator:
    """A torch device."""
    text = "auto (a GPU if available), cpu, cuda, or cuda:1 ..."
    return click.option("--device", default="auto", show_default=True, help=text)


def num_gpus(
    help: str = "Number of GPUs; 0 is the CPU.  [default: one if available]",
) -> Decorator:
    """The number of GPUs."""
    return click.option("--num-gpus", type=click.IntRange(0), help=help)


def workers(help: str, default: int | None = None, *, least: int = 0) -> Decorator:
    """The number of worker processes."""
    return click.option(
        "--workers",
        type=click.IntRange(least),
        default=default,
        show_default=default is not None,
        help=help,
    )


def batch_size(
    default: int, help: str = "Images per forward pass.", *, least: int = 1
) -> Decorator:
    """The number of images per forward pass."""
    return click.option(
        "--batch-size", type=click.IntRange(least), default=default, show_default=True, help=help
    )


def seed(help: str) -> Decorator:
    """The random seed."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=help)


# Outputs.


def output(help: str, default: Path | None = None) -> Decorator:
    """The file or folder to write; required if ``default`` is None."""
    return click.option(
        "--output", type=Path, show_default=True, help=help, **_default_or_required(default)
    )


def downloads(help: str = "Folder for downloads, under the files' own names.") -> Decorator:
    """The folder of downloads."""
    return click.option("--folder", type=Path, default=DOWNLOADS, show_default=True, help=help)
