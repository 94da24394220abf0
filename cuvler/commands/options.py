"""Options of more than one command: one name, one type and, by default, one wording each.

A command adds what only it can say: whether the option is required, its default, its help.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

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
    """An option ``NAME=PATH`` that is repeated, as the argument ``parameter`` of the command."""
    names = [flag, parameter] if parameter else [flag]
    metavar = f"{name}=PATH"
    return click.option(
        *names, multiple=True, type=named_path, required=required, metavar=metavar, help=help
    )


# What commands read.


def listing(help: str = "The dataset's listing (.parquet).") -> Decorator:
    """The images that a command works on."""
    return click.option("--listing", type=Path, required=True, help=help)


def image_root(
    help: str = "The folder that file names start from.", *, required: bool = True
) -> Decorator:
    """Where a dataset's images are."""
    return click.option("--image-root", type=Path, required=required, help=help)


def ground_truth(
    help: str = "COCO json of the objects that are there.", *, required: bool = True
) -> Decorator:
    """What people have labelled."""
    return click.option("--ground-truth", type=Path, required=required, help=help)


def dataset(*, required: bool) -> Decorator:
    """The name a dataset has in the config."""
    text = "The dataset's name in the config, for messages."
    return click.option("--dataset", required=required, help=text)


def image_ids(*choices: str, help: str) -> Decorator:
    """Where the ids of images come from."""
    return click.option(
        "--ids", type=click.Choice(choices), default="order", show_default=True, help=help
    )


def shard() -> Decorator:
    """One of a listing's shards."""
    return click.option(
        "--shard", type=click.IntRange(min=0), required=True, help="Which shard, from 0."
    )


def configfiles() -> Decorator:
    """Snakemake's own option."""
    text = "Your own settings, over those in config/; as for snakemake. Repeat for several."
    return click.option("--configfile", "configfiles", multiple=True, type=Path, help=text)


# Models.


def definitions() -> Decorator:
    """ViTs that the table does not have."""
    text = "JSON of further ViTs: name -> timm, feature, size, patch."
    return click.option("--definitions", default="{}", help=text)


def detector() -> Decorator:
    """A trained detector."""
    text = "A detector's folder, or its weights alone."
    return click.option("--detector", type=Path, required=True, help=text)


def detector_config(help: str = "", *, required: bool = False) -> Decorator:
    """A detectron2 config."""
    text = (
        "cutler_mask_rcnn, semi_supervised_10 ... or a .yaml, of weights alone.  "
        "[default: votecut_cad]"
    )
    return click.option("--detector-config", required=required, help=help or text)


def unpickle_sha256() -> Decorator:
    """The one file of weights that may be unpickled."""
    text = "SHA-256 of trusted legacy weights: permits unpickling that file, which runs code."
    return click.option("--unpickle-sha256", default="", help=text)


def sha256(help: str = "Refuse a file with another digest.") -> Decorator:
    """The digest of what is fetched."""
    return click.option("--sha256", help=help)


# What is kept, scored and drawn.


def tau() -> Decorator:
    """The threshold of the patches' graph."""
    text = "Patches whose features have a cosine above it are joined."
    return click.option(
        "--tau", type=click.FloatRange(-1, 1), default=0.15, show_default=True, help=text
    )


def score_threshold(
    default: float | None, help: str = "Leave out predictions under this score."
) -> Decorator:
    """The lowest score that counts; required without a default."""
    return click.option(
        "--score-threshold",
        type=click.FloatRange(0, 1),
        required=default is None,
        default=default,
        show_default=True,
        help=help,
    )


def detections_per_image(help: str) -> Decorator:
    """The best that many predictions of an image are kept, detectron2's DETECTIONS_PER_IMAGE."""
    return click.option("--detections-per-image", type=click.IntRange(1), help=help)


def max_detections() -> Decorator:
    """The best that many detections of an image are scored, as in COCO's ``maxDets``."""
    return click.option(
        "--max-detections",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Detections of an image that count for AP (LVIS's own evaluation: 300).",
    )


def max_failed(help: str) -> Decorator:
    """The share of images that may be lost."""
    return click.option(
        "--max-failed", type=click.FloatRange(0, 1), default=0.01, show_default=True, help=help
    )


def tta() -> Decorator:
    """Test-time augmentation."""
    text = "Average over sizes and mirror images (test-time augmentation)."
    return click.option("--tta", is_flag=True, help=text)


def num_images(help: str) -> Decorator:
    """How many images a page shows."""
    return click.option(
        "--num-images", type=click.IntRange(1), default=8, show_default=True, help=help
    )


# The machine.


def device() -> Decorator:
    """A torch device."""
    text = "auto (a GPU if there is one), cpu, cuda, or cuda:1 of several."
    return click.option("--device", default="auto", show_default=True, help=text)


def num_gpus(
    help: str = "GPUs to use; 0 is the CPU.  [default: one if there is one]",
) -> Decorator:
    """The number of GPUs of a machine."""
    return click.option("--num-gpus", type=click.IntRange(0), help=help)


def workers(help: str, default: int | None = None, *, least: int = 0) -> Decorator:
    """Processes beside the main one."""
    return click.option(
        "--workers",
        type=click.IntRange(least),
        default=default,
        show_default=default is not None,
        help=help,
    )


def batch_size(
    default: int, help: str = "Images in a forward pass.", *, least: int = 1
) -> Decorator:
    """Images that a model takes at once."""
    return click.option(
        "--batch-size", type=click.IntRange(least), default=default, show_default=True, help=help
    )


def seed(help: str) -> Decorator:
    """The start of the random numbers."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=help)


# What commands write.


def output(help: str, default: Path | None = None) -> Decorator:
    """The file or folder to write; required without a default."""
    return click.option(
        "--output",
        type=Path,
        required=default is None,
        default=default,
        show_default=True,
        help=help,
    )


def downloads(help: str = "Where to, under the file's own name.") -> Decorator:
    """The folder of downloads."""
    folder = Path("resources/downloads")
    return click.option("--folder", type=Path, default=folder, show_default=True, help=help)
