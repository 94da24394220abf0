import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cuvler.commands.table import command
from cuvler.evaluation import METRICS as METRIC_NAMES
from cuvler.evaluation import published
from cuvler.evaluation.table import average, tables, to_csv, to_markdown

DATASETS = yaml.safe_load((Path(__file__).parents[2] / "config/datasets.yaml").read_text())[
    "datasets"
]
# The columns of CutLER's Table 1.
ELEVEN = ["coco_val", "coco20k", "voc07", "lvis_val", "uvo_sparse_val", "clipart", "comic"]
ELEVEN += ["watercolor", "kitti", "objects365_val", "openimages_val"]


def scores(ap50, ar100):
    return dict.fromkeys(METRIC_NAMES) | {"AP": 1.0, "AP50": ap50, "AR100": ar100}


COUNTS = {"num_images": 3, "num_ground_truth": 4, "num_results": 5}


METRICS = {
    "coco_val": {
        "votecut": {"bbox": scores(5.25, 10.0), "segm": scores(4.0, 8.0), **COUNTS},
        "cuvler_round0": {"bbox": scores(20.04, 30.0), "segm": scores(18.0, 25.0), **COUNTS},
    },
    "voc07": {"cuvler_round0": {"bbox": scores(35.96, None), **COUNTS}},
}


class TestPublished:
    def test_cutler_on_its_eleven_datasets(self):
        cutler = published("bbox")[0]
        assert (cutler.name, list(cutler.scores)) == ("CutLER", ELEVEN)
        assert cutler.scores["openimages_val"] == {"AP50": 17.3, "AR100": 29.6}
        # The paper's abstract: 2.7 times the previous AP50; its table: averages 24.3 and 35.5.
        means = [
            sum(values[metric] for values in cutler.scores.values()) / 11
            for metric in ("AP50", "AR100")
        ]
        assert [round(mean, 1) for mean in means] == [24.3, 35.5]

    @pytest.mark.parametrize("iou_type", ["bbox", "segm"])
    def test_every_row_names_datasets_that_are_known_and_its_source(self, iou_type):
        for row in published(iou_type):
            assert row.source
            for name, values in row.scores.items():
                assert name in DATASETS
                assert all(0 < value < 100 for value in values.values())
                assert iou_type == "bbox" or DATASETS[name].get("masks", True)


class TestLayout:
    def test_rows_are_detectors_and_columns_datasets(self):
        boxes, masks = tables(METRICS)
        assert (boxes.iou_type, boxes.datasets) == ("bbox", ("coco_val", "voc07"))
        assert [row.name for row in boxes.rows] == ["CutLER", "votecut", "cuvler_round0"]
        assert boxes.rows[0].source
        assert boxes.rows[0].scores["voc07"] == {"AP50": 36.9, "AR100": 44.3}
        assert boxes.rows[2].source is None
        assert masks.datasets == ("coco_val",)
        assert {row.name for row in masks.rows} == {"CutLER", "CuVLER", "votecut", "cuvler_round0"}

    def test_published_rows_stand_only_beside_datasets_that_were_run(self):
        (table,) = tables({"my_photos": {"cuvler_round0": {"bbox": scores(1, 2)}}})
        assert [row.name for row in table.rows] == ["cuvler_round0"]

    def test_an_average_is_of_all_datasets_or_none(self):
        boxes = tables(METRICS)[0]
        cutler, votecut, ours = boxes.rows
        assert average(cutler, boxes.datasets, "AP50") == pytest.approx((21.9 + 36.9) / 2)
        assert average(votecut, boxes.datasets, "AP50") is None
        assert average(ours, boxes.datasets, "AP50") == pytest.approx(28)
        assert average(ours, boxes.datasets, "AR100") is None
        assert average(ours, ("coco_val",), "AP50") is None

    def test_markdown(self):
        text = to_markdown(tables(METRICS), {"coco_val": "COCO", "voc07": "VOC"})
        lines = text.splitlines()
        assert "| Boxes | Average | COCO | VOC |" in lines
        assert r"| CutLER (published) [^1] | 29.4 \| 38.5 | 21.9 \| 32.7 | 36.9 \| 44.3 |" in lines
        assert r"| votecut |  | 5.2 \| 10.0 |  |" in lines
        assert r"| cuvler_round0 | 28.0 \| – | 20.0 \| 30.0 | 36.0 \| – |" in lines  # noqa: RUF001
        assert "| Masks | COCO |" in lines
        assert any(line.startswith("[^1]: Wang et al.") for line in lines)
        # All lines of a table have the same number of cells.
        for block in text.split("\n\n"):
            cells = {row.replace(r"\|", "").count("|") for row in block.splitlines()}
            assert len(cells) == 1

    def test_names_are_no_markup(self):
        entry = "a|b<script>alert(1)</script>\n| c |"
        (table,) = tables({"x": {entry: {"bbox": scores(1, 2)}}})
        text = to_markdown([table], {"x": "[x](javascript:y)|`z`&lt;"})
        assert r"a\|b\<script\>alert(1)\</script\> \| c \| |" in text
        assert r"\[x\](javascript:y)\|\`z\`&amp;lt; |" in text
        rows = text.split("\n\n")[1].splitlines()
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}

    def test_csv_is_unrounded_and_whole(self):
        text = to_csv(tables(METRICS), {"coco_val": "COCO"})
        rows = list(csv.DictReader(io.StringIO(text)))
        assert list(rows[0])[:5] == [
            "scored",
            "detector",
            "published in",
            "COCO AP50",
            "COCO AR100",
        ]
        ours = {(row["scored"], row["detector"]): row for row in rows if not row["published in"]}
        assert ours["Boxes", "cuvler_round0"]["COCO AP50"] == "20.04"
        assert ours["Boxes", "cuvler_round0"]["voc07 AR100"] == ""
        assert ours["Masks", "votecut"]["voc07 AP50"] == ""
        assert sum(row["detector"] == "CutLER" for row in rows) == 2


class TestCommand:
    @pytest.fixture
    def arguments(self, tmp_path):
        words = []
        for name, entries in METRICS.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(entries))
            words += ["--metrics", f"{name}={tmp_path / name}.json"]
        return [*words, "--title", "coco_val=COCO val2017"]

    def test_files(self, tmp_path, arguments):
        paths = [tmp_path / "table.csv", tmp_path / "table.md"]
        words = ["--csv", str(paths[0]), "--markdown", str(paths[1])]
        outcome = CliRunner().invoke(command, [*arguments, *words])
        assert outcome.exit_code == 0, outcome.output
        assert outcome.output == ""
        assert paths[0].read_text().startswith("scored,detector,published in,COCO val2017 AP50,")
        assert "| Boxes | Average | COCO val2017 | voc07 |" in paths[1].read_text()

    def test_shown_without_files(self, arguments):
        outcome = CliRunner().invoke(command, arguments)
        assert "| cuvler_round0 | 28.0" in outcome.output

    @pytest.mark.parametrize("content", ["[]", '{"cuvler_round0": 3}'])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "x.json").write_text(content)
        outcome = CliRunner().invoke(command, ["--metrics", f"x={tmp_path}/x.json"])
        assert "not what `cuvler metrics` writes" in str(outcome.exception)

    def test_a_title_needs_its_dataset(self, arguments):
        outcome = CliRunner().invoke(command, [*arguments, "--title", "COCO"])
        assert outcome.exit_code == 2
        assert "'COCO' is not NAME=" in outcome.output
