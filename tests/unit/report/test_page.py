import dataclasses
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from cuvler.commands.report import command
from cuvler.eigenvectors.store import ShardEigenvectors, write_eigenvectors
from cuvler.evaluation import METRICS
from cuvler.report import Inputs, make_report
from cuvler.report.formats import change, percent

VOID = {"meta", "link", "img", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """The page's elements; complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data.strip())

    def values(self, attribute, tag=None):
        return [a[attribute] for t, a in self.elements if attribute in a and tag in (None, t)]

    @property
    def sections(self):
        return self.values("id", "section")


def test_all_sections_are_there(page):
    page = Page(page)
    sections = ["summary", "metrics", "fine-tuning", "galleries", "masks", "training", "run"]
    assert page.sections == sections
    text = " ".join(filter(None, page.text))
    for word in (
        "Mask AP on demo_val",
        "All metrics",
        "best and worst of cuvler_round1",
        "unreadable",
        "9.png: truncated",
        "refined by the CRF",
        "train: demo_train",
        "1 h 1 min",
        "5,120 MB",
        "2.02",  # CPU-hours
        "8.22",  # GPU-hours: 3700.5 s on 8
        "augmented samples",
        "2 batches skipped",
        "proposals",
        "AP of each class",
        "teddy bear",
    ):
        assert word in text, word
    charts = [a["aria-label"] for tag, a in page.elements if a.get("class") == "chart"]
    assert len(charts) == 9  # AP, two of precision over recall, four histograms, losses, scores
    assert "; 1 of them not refined" in charts[4]
    assert "from 2.68 to 1.35 in 99 iterations" in charts[-2]
    assert "boxes 24.8, masks 19.8" in charts[-1]


def test_what_is_not_given_is_left_out(inputs):
    page = Page(make_report(Inputs()))
    assert page.sections == ["run"]
    assert page.values("href", "a") == ["#main", "#run"]
    for name in ("metrics", "annotations", "detectors", "image_roots"):
        part = Inputs(**{name: getattr(inputs, name)})
        sections = set(Page(make_report(part)).sections)
        expected = {
            "metrics": {"summary", "metrics"},
            "annotations": {"summary", "masks"},
            "detectors": {"training"},
            "image_roots": set(),
        }
        assert sections == expected[name] | {"run"}


def test_the_page_needs_nothing_else(page):
    page = Page(page)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for source in page.values("src"):
        assert source.startswith("data:image/webp;base64,")
    links = page.values("href") + page.values("xlink:href")
    for link in links:
        assert link == "data:," or link[1:] in ids, link
    for style in page.values("style") + page.values("clip-path"):
        for reference in re.findall(r"url\(([^)]*)\)", style):
            assert reference[1:] in ids


def test_pictures_and_charts_have_words(page):
    page = Page(page)
    pictures = [a for tag, a in page.elements if tag == "img" and "src" in a]
    # Three images of seven panels; one best and one worst of three; a detector's samples.
    assert len(pictures) == 3 * 7 + 2 * 3 + 1
    assert all(a["alt"] and int(a["width"]) and int(a["height"]) for a in pictures)
    assert all(a.get("aria-label") for tag, a in page.elements if tag == "svg")


COUNTS = {"num_images": 3, "num_ground_truth": 4, "num_results": 5}


def test_entries_may_lack_masks(trial):
    scores = dict.fromkeys(METRICS, 7.25)
    metrics = {
        "a": {"bbox": scores, "segm": scores, **COUNTS},
        "b": {"bbox": scores, **COUNTS},
    }
    page = make_report(Inputs(metrics={"voc": trial.write("m.json", metrics)}))
    assert Page(page).sections == ["summary", "metrics", "run"]


def test_datasets_of_the_papers_have_their_published_scores(inputs, trial):
    scores = dict.fromkeys(METRICS, 7.25)
    files = {
        name: trial.write(f"{name}.json", {"cutler_round3": {"bbox": scores, **COUNTS}})
        for name in ("coco_val", "voc07", "mine")
    }
    page = Page(make_report(Inputs(metrics=files)))
    text = " ".join(filter(None, page.text))
    assert "All datasets" in text
    assert "36.9 | 44.3" in text  # CutLER on VOC
    assert "Wang et al., Cut and Learn" in text
    one = make_report(Inputs(metrics={"mine": files["mine"]}))
    assert "All datasets" not in one
    assert "published" not in " ".join(Page(one).text)


EVIL = '<script>alert(\'"&$1$x\\d")</script>'


def test_names_are_text_and_never_markup(inputs, trial):
    (trial.folder / "images").mkdir()
    shutil.copy(inputs.image_roots["demo_val"] / "2.png", trial.folder / "images" / "a\"<b>&'.png")
    truth = {
        "images": [{"id": 2, "file_name": "a\"<b>&'.png", "width": 60, "height": 40}],
        "annotations": [],
    }
    shutil.copytree(inputs.detectors["cuvler_round0"], trial.folder / "d")
    evil = dataclasses.replace(
        inputs,
        metrics={EVIL: inputs.metrics["demo_val"]},
        image_roots={"demo_val": trial.folder / "images"},
        ground_truth={"demo_val": trial.write("truth.json", truth)},
        annotations={("demo_val", EVIL): inputs.annotations["demo_val", "votecut"]},
        detectors={EVIL: trial.folder / "d"},
        config=f"name: {EVIL}\n",
    )
    text = make_report(evil, title=EVIL)
    assert "<script>alert" not in text
    assert "<b>&'" not in text
    page = Page(text)
    assert page.text.count(EVIL) >= 4
    assert "a\"<b>&'.png" in page.values("data-name")
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 1


def test_scores_and_changes():
    assert [percent(12.345), percent(None)] == ["12.3", "\N{EN DASH}"]
    minus = "\N{MINUS SIGN}0.5"
    assert [change(1.26), change(-0.5), change(-0.04)] == ["+1.3", minus, "+0.0"]


def options(inputs):
    pairs = [
        ("--metrics", inputs.metrics),
        ("--fine-tuning", inputs.fine_tuning),
        ("--image-root", inputs.image_roots),
        ("--ground-truth", inputs.ground_truth),
        ("--detector", inputs.detectors),
    ]
    pairs += [
        (option, {"/".join(key): path for key, path in files.items()})
        for option, files in (
            ("--evaluation", inputs.evaluations),
            ("--eigenvectors", inputs.eigenvectors),
            ("--annotations", inputs.annotations),
            ("--predictions", inputs.predictions),
        )
    ]
    words = [w for o, files in pairs for n, path in files.items() for w in (o, f"{n}={path}")]
    words += ["--benchmarks", str(inputs.benchmarks), "--config", inputs.config]
    words += ["--gpus", "detector=8"]
    return [*words, "--num-images", str(inputs.images)]


def test_command_writes_the_same_page_byte_for_byte(inputs, page, trial):
    output = trial.folder / "results/report.html"
    outcome = CliRunner().invoke(command, ["--output", str(output), *options(inputs)])
    assert outcome.exit_code == 0, outcome.output
    assert output.read_text(encoding="utf-8") == page


@pytest.mark.parametrize(("device", "hours"), [("cuda:0", "0.50"), ("cpu", "0.00")])
def test_gpu_hours_of_eigenvectors_are_those_of_a_gpu(trial, device, hours):
    header = "s\th:m:s\tmax_rss\tcpu_time\n"
    trial.write("benchmarks/eigenvectors/demo/0.tsv", header + "1800\t0:30:00\t1\t1\n")
    content = ShardEigenvectors.empty(np.array([1]), 1, (6, 8))
    write_eigenvectors(trial.folder / "0.zarr.zip", content, {"device": device})
    inputs = Inputs(
        eigenvectors={("demo", "votecut", "pixels_p8"): trial.folder},
        benchmarks=trial.folder / "benchmarks",
        gpus={"eigenvectors": 1},
    )
    page = make_report(inputs)
    assert f"<dt>GPU-hours</dt><dd>{hours}</dd>" in page


def test_command_names_gpus_that_are_no_number(trial):
    outcome = CliRunner().invoke(command, ["--output", "x.html", "--gpus", "detector=many"])
    assert outcome.exit_code == 2
    assert "'detector=many' is not RULE=N" in outcome.output


@pytest.mark.parametrize(
    ("option", "name", "wanted"),
    [
        ("--predictions", "round0", "DATASET/NAME"),
        ("--annotations", "a/b/c", "DATASET/NAME"),
        ("--eigenvectors", "demo//pixels_p8", "DATASET/METHOD/BACKBONE"),
    ],
)
def test_command_names_a_key_of_another_kind(inputs, option, name, wanted):
    words = ["--output", "x.html", option, f"{name}={inputs.benchmarks}"]
    outcome = CliRunner().invoke(command, words)
    assert outcome.exit_code == 2
    assert f"'{name}' is not {wanted}" in outcome.output
