"""The COCO files of a dataset, each read once: what the page counts, draws and ranks of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuvler.coco import Annotation, Item, Needs, read_coco
from cuvler.coco.refusals import refusal
from cuvler.evaluation.compact import CompactRecords
from cuvler.listing import ListedImage
from cuvler.report.accounting import NEEDS, account, account_section
from cuvler.report.cards import Layer
from cuvler.report.inputs import Inputs, of_dataset
from cuvler.report.records import DRAWN, ImageTable, Shown, is_drawn

_TRUTH = Needs(file_names=True)


@dataclass(frozen=True)
class Ranked:
    """All objects of a dataset and the last detector's detections, to rank the images.

    Attributes:
        detector: its name.
        images: of the ground truth.
        objects: the ground truth without crowds.
        detections: those that are drawn.
    """

    detector: str
    images: ImageTable
    objects: CompactRecords
    detections: CompactRecords


@dataclass
class DatasetFiles:
    """The content of a dataset's files; all but the accounts is empty without an image root.

    Attributes:
        images: those of the gallery, by id: spread evenly over the ground truth or the first
            annotations.
        infos: method -> the settings of its annotations.
        accounts: method -> the page's section on its annotations.
        masks: a layer for each file of annotations.
        detections: a layer for each file of predictions.
        truth: the ground truth's layer.
        ranked: what images are ranked by; None without predictions or ground truth.
    """

    images: dict[int, ListedImage] = field(default_factory=dict)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: list[Layer] = field(default_factory=list)
    detections: list[Layer] = field(default_factory=list)
    truth: Layer | None = None
    ranked: Ranked | None = None

    @property
    def layers(self) -> list[Layer]:
        """The layers of a gallery in the order of the stages."""
        return [*self.masks, *self.detections, *([self.truth] if self.truth else [])]


def read_dataset(inputs: Inputs, dataset: str) -> DatasetFiles:
    """Read the annotations, and for a gallery also the ground truth and predictions.

    Raises:
        DataError: a file is missing or damaged, or does not match the images.
    """
    files = DatasetFiles()
    if dataset not in inputs.image_roots:
        _read_annotations(files, inputs, dataset, None)
        return files
    shown = Shown(inputs.images)
    predictions = of_dataset(inputs.predictions, dataset)
    objects = _read_truth(files, inputs, dataset, shown, ranked=bool(predictions))
    _read_annotations(files, inputs, dataset, shown)
    files.images = shown.images
    if not files.images:
        return files
    for name, path in predictions.items():
        ranked = objects is not None and name == list(predictions)[-1]
        detections = CompactRecords(("bbox", "segm"), None)
        sizes = shown.table.sizes() if ranked and shown.table else shown.sizes
        items: Iterable[Item] = read_coco(path, DRAWN, sizes=sizes, quiet=True)
        if ranked:
            items = _kept(items, detections, path, DRAWN, inputs.score_threshold)
        layer = Layer(name, "detections", path, {})
        _exhaust(shown.watch(items, layer.records, inputs.score_threshold))
        files.detections.append(layer)
        if objects is not None and ranked and shown.table:
            files.ranked = Ranked(name, shown.table, objects, detections)
    return files


def _read_truth(
    files: DatasetFiles, inputs: Inputs, dataset: str, shown: Shown, *, ranked: bool
) -> CompactRecords | None:
    """Read the ground truth, if there is one; return all of its objects if they are ranked."""
    if dataset not in inputs.ground_truth:
        return None
    path = inputs.ground_truth[dataset]
    objects = CompactRecords(("bbox", "segm"), None)
    items: Iterable[Item] = read_coco(path, _TRUTH, quiet=True)
    if ranked:
        items = _kept(items, objects, path, _TRUTH, 0.0)
    files.truth = Layer("ground truth", "objects", path, {})
    _exhaust(shown.watch(items, files.truth.records))
    return objects if ranked else None


def _read_annotations(
    files: DatasetFiles, inputs: Inputs, dataset: str, shown: Shown | None
) -> None:
    for name, path in of_dataset(inputs.annotations, dataset).items():
        layer = Layer(name, "masks", path, {})
        if shown is None:
            counted = account(path)
        else:
            # The first file names the images.
            needs = replace(NEEDS, file_names=shown.table is None)
            counted = account(path, shown.watch(read_coco(path, needs), layer.records))
        files.masks.append(layer)
        files.infos[name] = counted.info
        # Drawn at once: the numbers of one file take 40 bytes a mask.
        files.accounts[name] = account_section(f"{name} on {dataset}", counted)


def _kept(
    items: Iterable[Item], kept: CompactRecords, path: Path, needs: Needs, score_threshold: float
) -> Iterator[Item]:
    """Pass items on and keep the records that would be drawn."""
    index = 0
    for item in items:
        if isinstance(item, Annotation):
            if is_drawn(item, score_threshold):
                refused = kept.add(item)
                if reason := refused.get("bbox") or (item.segmentation and refused.get("segm")):
                    raise refusal(path, needs, index, item, reason)
            index += 1
        yield item


def _exhaust(items: Iterable[Item]) -> None:
    for _ in items:
        pass
