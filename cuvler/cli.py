"""The ``cuvler`` command: one sub-command a stage, loaded only when it is called."""

import importlib
import logging
import os
import sys

import click

from cuvler import __version__
from cuvler.errors import CuvlerError

# Command -> (module that holds it, one line for the overview). The modules import torch,
# zarr or detectron2; naming the lines here keeps ``cuvler --help`` fast.
COMMANDS = {
    "datasets": (
        "cuvler.commands.datasets",
        "List the data sets known by name: what is here, where to get the others.",
    ),
    "download": (
        "cuvler.commands.download",
        "Download published weights, annotations and images, or any other file.",
    ),
    "ground-truth": (
        "cuvler.commands.ground_truth",
        "Make class-agnostic ground truth from official annotations.",
    ),
    "images": ("cuvler.commands.images", "List a dataset's images and deal them into shards."),
    "weights": ("cuvler.commands.weights", "Fetch a backbone's weights, once, with their sha256."),
    "eigenvectors": (
        "cuvler.commands.eigenvectors",
        "Extract one shard's eigenvectors into Zarr.",
    ),
    "pseudo-masks": ("cuvler.commands.pseudo_masks", "Cut one shard's masks from eigenvectors."),
    "annotations": ("cuvler.commands.annotations", "Merge the shards into one COCO json."),
    "splits": ("cuvler.commands.splits", "Take a few percent of a dataset's labels."),
    "detector": ("cuvler.commands.detector", "Train a detector on annotations."),
    "predictions": ("cuvler.commands.predictions", "Run a detector over a dataset."),
    "self-training": (
        "cuvler.commands.self_training",
        "Turn predictions into the next round's annotations.",
    ),
    "evaluation": ("cuvler.commands.evaluation", "Score masks against ground truth."),
    "metrics": ("cuvler.commands.metrics", "Gather a dataset's scores into one table."),
    "table": (
        "cuvler.commands.table",
        "Lay out all detectors on all datasets, as the papers do.",
    ),
    "reproduction": (
        "cuvler.commands.reproduction",
        "Hold published detectors, scored here, against the papers.",
    ),
    "compare": ("cuvler.commands.compare", "Tell where two result files differ most."),
    "report": ("cuvler.commands.report", "Make the report page."),
    "plan": ("cuvler.commands.plan", "Show what a run will take."),
    "status": ("cuvler.commands.status", "Show how far a run is."),
    "discover": ("cuvler.commands.discover", "Find the objects in single images."),
    "predict": ("cuvler.commands.predict", "Run a trained detector on single images."),
}


# The parameters of commands that rules take from the config.
_CONFIG_KEYS = {"max_failed": "annotations.max_failed"}


class LazyGroup(click.Group):
    """A group that imports a sub-command's module when the sub-command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the sub-commands in the order of the data."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a sub-command."""
        if name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cuvler() -> None:
    """Find and segment every object in unlabelled images."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )


def main() -> None:
    """Entry point: errors meant for the user end in one message, not in a traceback."""
    # Before torch loads OpenMP. Its threads wait for each other by spinning unless told not to:
    # with a single busy process beside it, a detector on two cores is then six times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cuvler(prog_name="cuvler")
    except CuvlerError as error:
        click.echo(f"Error: {error}{_option_of(error)}", err=True)
        sys.exit(1)


def _option_of(error: CuvlerError) -> str:
    """Say how the parameter that an error is about is set from the command line."""
    if not error.parameter:
        return ""
    key = _CONFIG_KEYS.get(error.parameter)
    config = f", in a workflow's config {key}" if key else ""
    return f" (--{error.parameter.replace('_', '-')}{config})"
