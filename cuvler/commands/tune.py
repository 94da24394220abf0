"""``cuvler tune``: try many settings on single images, and lay out what they find."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cuvler.commands import options
from cuvler.commands.discover import in_options
from cuvler.commands.method_options import SettingsCommand
from cuvler.commands.pictures import Pictures
from cuvler.discovery import NoWeightsError, load_backbones
from cuvler.drawing import write_png
from cuvler.eigenvectors.backbones import backbone_spec, parse_definitions
from cuvler.extras import require_extra
from cuvler.files import atomic_path
from cuvler.progress import Progress
from cuvler.pseudo_masks.methods import method_names
from cuvler.report.formats import counted, percent

if TYPE_CHECKING:
    from cuvler.tuning import Line

_INSTEAD = ("pixels_p16",)  # without weights


@click.command("tune", cls=SettingsCommand)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(method_names()),
    help="A method; repeat for several.  [default: all]",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=["dino_s16"],
    show_default=True,
    help="A backbone; repeat for several, which are tried alone and, by methods that take "
    "several, together.",
)
@options.named_paths(
    "--weights",
    "BACKBONE",
    help="A ViT's weights; those not named are fetched from the hub, once.",
)
@options.definitions()
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.IntRange(2),
    metavar="PIXELS",
    help="Side of the square that images are resized to, rounded to whole patches; repeat for "
    "several.  [default: each backbone's own]",
)
@click.option(
    "--tau",
    "taus",
    multiple=True,
    type=click.FloatRange(-1, 1),
    help="Cosine similarity above which two patches are connected; repeat for several.  "
    "[default: four around each backbone's own]",
)
@options.ground_truth(
    "COCO json with the images' objects: scores each setting, and prints the best one as keys of "
    "the config.",
    required=False,
)
@options.device()
@options.max_pixels()
@options.output("The folder to write.", Path("tuned"))
@click.argument("images", nargs=-1, required=True, type=Path)
def command(
    methods: tuple[str, ...],
    backbones: tuple[str, ...],
    weights: tuple[tuple[str, Path], ...],
    definitions: str,
    sizes: tuple[int, ...],
    taus: tuple[float, ...],
    settings: Mapping[str, Sequence[Any]],
    ground_truth: Path | None,
    device: str,
    output: Path,
    images: tuple[Path, ...],
) -> None:
    """Try many settings on IMAGES, files or folders, and lay out what they find.

    Writes, into the output folder, tune.html (a page that needs no network), NAME.tune.png (the
    same of one image) and, with --ground-truth, tuned.yaml (the best setting, for --configfile).
    The settings are all combinations of the options; of a method's own settings, those it has.
    """
    require_extra("report")
    from cuvler.tuning import Results, Truth, best_of, settings_grid, try_settings
    from cuvler.tuning.page import draw_sheet_of, draw_trials, make_page, make_section

    defined = parse_definitions(definitions)
    rows = settings_grid(
        methods or method_names(),
        [backbone_spec(name, defined) for name in dict.fromkeys(backbones)],
        sizes=sizes,
        taus=taus,
        values=settings,
    )
    pictures = Pictures(images, output)
    truth = Truth(ground_truth, pictures.files) if ground_truth else None
    pictures.sizes = truth.sizes if truth else {}
    specs = list(dict.fromkeys(s for row in rows for s in row.settings[0].specs))
    try:
        loaded = load_backbones(specs, weights=dict(weights), device=device, instead=_INSTEAD)
    except NoWeightsError as error:
        raise in_options(error, definitions) from error
    results, sections = Results(rows, truth), []
    count = sum(len(row.settings) for row in rows)
    with Progress(count * len(pictures.files), unit="setting") as progress:
        for file, image in pictures:
            found = try_settings(
                image, rows, dict(zip(specs, loaded, strict=True)), tried=progress.update
            )
            scores = results.add(file.path, found)
            objects = truth.masks(file.path, image.size) if truth else None
            drawn = draw_trials(file.name, image, rows, found, objects=objects, scores=scores)
            sections.append(make_section(drawn))
            with pictures.writing():
                write_png(draw_sheet_of(drawn), output / f"{file.stem}.tune.png")
    if sections:
        lines = results.lines()
        with atomic_path(output / "tune.html") as temporary:
            temporary.write_text(make_page(sections, lines), encoding="utf-8")
        tried, shown = counted(count, "setting"), counted(len(sections), "image")
        click.echo(f"{output / 'tune.html'}: {tried} tried on {shown}")
        if truth:
            _print_best(best_of(lines), output / "tuned.yaml")
    pictures.require_all()


def _print_best(best: "Line | None", path: Path) -> None:
    from cuvler.tuning import config_snippet

    if best is None or best.score is None:
        click.echo("no setting finds an object of the ground truth")
        return
    setting = best.setting
    snippet = config_snippet(setting)
    with atomic_path(path) as temporary:
        temporary.write_text(snippet, encoding="utf-8")
    click.echo(
        f"best: {best.row.label}, {setting.tau_label}, {setting.backbones}: "
        f"AP {percent(best.score.ap)}, AP50 {percent(best.score.ap50)}; in {path}:\n\n{snippet}",
        nl=False,
    )
