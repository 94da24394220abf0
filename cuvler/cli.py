"""The ``cuvler`` command: one sub-command per stage, imported on demand."""

import difflib
import importlib
import os
import sys

import click

from cuvler import __version__
from cuvler.errors import CuvlerError
from cuvler.files import full_disk_named
from cuvler.logs import configure, printable

# Command -> (module, one line for the overview). The lines are here because the modules import
# torch, zarr or detectron2, which would make ``cuvler --help`` slow.
COMMANDS = {
    "datasets": (
        "cuvler.commands.datasets",
        "List the known datasets, and where to get those that are missing.",
    ),
    "download": (
        "cuvler.commands.download",
        "Download published weights, annotations and images, or any other file.",
    ),
    "ground-truth": (
        "cuvler.commands.ground_truth",
        "Convert official annotations to class-agnostic ground truth.",
    ),
    "images": ("cuvler.commands.images", "List a dataset's images and divide them into shards."),
    "weights": ("cuvler.commands.weights", "Fetch a backbone's weights and record their sha256."),
    "eigenvectors": (
        "cuvler.commands.eigenvectors",
        "Extract the eigenvectors of one shard into a Zarr file.",
    ),
    "pseudo-masks": ("cuvler.commands.pseudo_masks", "Compute the pseudo-masks of one shard."),
    "annotations": (
        "cuvler.commands.annotations",
        "Merge the shards' pseudo-masks into one COCO json.",
    ),
    "splits": ("cuvler.commands.splits", "Draw splits with a few percent of a dataset's labels."),
    "detector": ("cuvler.commands.detector", "Train a detector on annotations."),
    "predictions": ("cuvler.commands.predictions", "Run a detector over a dataset."),
    "self-training": (
        "cuvler.commands.self_training",
        "Convert predictions to the next round's annotations.",
    ),
    "evaluation": ("cuvler.commands.evaluation", "Score masks against ground truth."),
    "metrics": ("cuvler.commands.metrics", "Collect a dataset's scores in one file."),
    "table": (
        "cuvler.commands.table",
        "Write a table of all detectors on all datasets, as in the papers.",
    ),
    "model-card": (
        "cuvler.commands.model_card",
        "Write a trained detector's model card, with its scores.",
    ),
    "reproduction": (
        "cuvler.commands.reproduction",
        "Score published detectors and compare with the papers.",
    ),
    "view": ("cuvler.commands.view", "Show any masks over their images, as one page."),
    "export": (
        "cuvler.commands.export",
        "Write masks in the format of another tool: YOLO, Label Studio, CVAT, PNG...",
    ),
    "compare": ("cuvler.commands.compare", "Show where two result files differ most."),
    "report": ("cuvler.commands.report", "Write the report page."),
    "plan": ("cuvler.commands.plan", "Estimate the time and disk space of a run."),
    "status": ("cuvler.commands.status", "Show the progress of a run."),
    "discover": ("cuvler.commands.discover", "Find the objects in single images."),
    "tune": (
        "cuvler.commands.tune",
        "Try many settings on single images, and lay out what they find.",
    ),
    "predict": ("cuvler.commands.predict", "Run a trained detector on single images."),
}


# Parameters that the rules take from the config.
_CONFIG_KEYS = {
    "allow_outside": "images.allow_outside",
    "max_failed": "annotations.max_failed",
}


class LazyGroup(click.Group):
    """A group that imports a sub-command's module on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the sub-commands in the order of the pipeline."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a sub-command."""
        if name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command; suggest one for a name that is misspelt."""
        close = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if close and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing the sub-commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cuvler() -> None:
    """Find and segment every object in unlabelled images."""
    configure(date_format="%H:%M:%S")


def main() -> None:
    """Run the command line; a ``CuvlerError`` is printed as one message, without a traceback."""
    # Must be set before torch loads OpenMP. By default its threads busy-wait for each other: with
    # one other busy process, a detector on two cores is then six times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # Most files are written by functions that name them; this is for all others, and for
        # temporary files of libraries.
        with full_disk_named("a temporary file or the output"):
            cuvler(prog_name="cuvler")
    except CuvlerError as error:
        message = printable(f"{error}{_option_of(error)}", lines=True)
        click.echo(f"Error: {message}", err=True)
        sys.exit(1)


def _option_of(error: CuvlerError) -> str:
    """Return the option and the config key that set the error's parameter."""
    if not error.parameter:
        return ""
    key = _CONFIG_KEYS.get(error.parameter)
    config = f", in a workflow's config {key}" if key else ""
    return f" (--{error.parameter.replace('_', '-')}{config})"
