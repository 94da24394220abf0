"""Render the report."""

from importlib import resources
from typing import Any

from markupsafe import Markup

from cuvler import __version__
from cuvler.evaluation.score_files import read_metrics
from cuvler.report import sections
from cuvler.report.dataset import read_dataset
from cuvler.report.inputs import Inputs, Key
from cuvler.report.stored import read_stored
from cuvler.report.tables import versions
from cuvler.report.templates import render


def make_report(inputs: Inputs, *, title: str = "cuvler report") -> str:
    """Return the report as one self-contained HTML page.

    The same inputs and package versions give the same bytes.

    Raises:
        DataError: an input is missing or damaged, or does not match the others.
    """
    metrics = {dataset: read_metrics(path) for dataset, path in inputs.metrics.items()}
    accounts, galleries, devices = _datasets(inputs)
    return _render(
        title=title,
        version=__version__,
        score_threshold=inputs.score_threshold,
        tiles=sections.tiles(metrics, accounts),
        overview=sections.overview(metrics),
        metrics={
            dataset: sections.metrics_section(inputs, dataset, entries)
            for dataset, entries in metrics.items()
        },
        fine_tuning={
            dataset: sections.fine_tuning_section(read_metrics(path))
            for dataset, path in inputs.fine_tuning.items()
        },
        galleries=galleries,
        accounts={f"{dataset} · {method}": of for (dataset, method), of in accounts.items()},
        training={
            detector: sections.training_section(detector, folder)
            for detector, folder in inputs.detectors.items()
        },
        run=sections.run_section(inputs, devices),
        config=inputs.config,
        versions=versions(),
    )


def _datasets(
    inputs: Inputs,
) -> tuple[dict[Key, dict[str, Any]], dict[str, Any], set[str]]:
    """Read one dataset after the other.

    Returns:
        The sections of annotations, the galleries, and the devices that eigenvectors were extracted
        on.
    """
    accounts: dict[Key, dict[str, Any]] = {}
    galleries: dict[str, Any] = {}
    devices: set[str] = set()
    keys = [*inputs.annotations, *inputs.eigenvectors]
    for dataset in dict.fromkeys([*inputs.image_roots, *(key[0] for key in keys)]):
        files = read_dataset(inputs, dataset)
        stored = read_stored(inputs, dataset, files.images)
        devices |= {of.device for of in stored.values() if of.device}
        accounts |= {(dataset, method): section for method, section in files.accounts.items()}
        if section := sections.gallery_section(inputs, dataset, files, stored):
            galleries[dataset] = section
    return {key: accounts[key] for key in inputs.annotations}, galleries, devices


def _render(**context: Any) -> str:
    folder = resources.files("cuvler.report")
    for name in ("page.css", "page.js"):
        text = folder.joinpath(name).read_text(encoding="utf-8")
        context[name.replace("page.", "")] = Markup(text)  # noqa: S704 (a file of this package)
    return render("cuvler.report", **context)
