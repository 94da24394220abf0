import json

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvler.commands import splits
from cuvler.errors import ConfigError, DataError
from cuvler.splits import write_splits


def labelled(count, *, first=1):
    """A COCO json of ``count`` images; image i has i % 3 annotations."""
    images = [{"id": first + 7 * i, "file_name": f"{i}.jpg"} for i in range(count)]
    owners = [image["id"] for i, image in enumerate(images) for _ in range(i % 3)]
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1}],
        "images": images,
        "annotations": [
            {
                "id": 100 + i,
                "image_id": owner,
                "category_id": 90 if i % 2 else 3,
                "bbox": [i, 0, 5, 5.5],
            }
            for i, owner in enumerate(owners)
        ],
        # After the annotations, as in the official files.
        "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
    }


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(labelled(200)))
    return path


def read(folder, percent):
    return json.loads((folder / f"{percent}.json").read_text())


def ids(content, section="images"):
    return [record["id"] for record in content[section]]


def test_splits_are_nested_by_image_and_keep_classes_and_order(source, tmp_path):
    whole = json.loads(source.read_text())
    counts = write_splits(source, tmp_path / "splits", percents=[10, 1, 100, 2])
    assert counts == {1: 2, 2: 4, 10: 20, 100: 200}
    previous = set()
    for percent, count in counts.items():
        split = read(tmp_path / "splits", percent)
        chosen = ids(split)
        assert len(chosen) == count
        assert previous < set(chosen)
        previous = set(chosen)
        assert split["images"] == [i for i in whole["images"] if i["id"] in previous]
        assert split["annotations"] == [
            a for a in whole["annotations"] if a["image_id"] in previous
        ]
        assert split["categories"] == whole["categories"]
        assert split["licenses"] == whole["licenses"]
        of = {"percent": percent, "seed": 0, "of": 200}
        assert split["info"] == {"year": 2017, "split": of}


def test_splits_depend_only_on_the_seed_and_the_ids(source, tmp_path):
    write_splits(source, tmp_path / "one", percents=[10])
    write_splits(source, tmp_path / "two", percents=[1, 10, 50])
    write_splits(source, tmp_path / "three", percents=[10], seed=1)
    one, two, three = (
        (tmp_path / name / "10.json").read_bytes() for name in ("one", "two", "three")
    )
    assert one == two
    assert ids(json.loads(one)) != ids(json.loads(three))
    # As computed by sha256sum and sort on the command line, hence the same on any machine.
    assert ids(json.loads(one))[:5] == [92, 127, 190, 267, 351]


@given(st.integers(1, 60), st.integers(1, 99), st.integers(0, 9))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splits_are_nested(tmp_path, count, percent, seed):
    path = tmp_path / "any.json"
    path.write_text(json.dumps(labelled(count)))
    write_splits(path, tmp_path / "any", percents=[percent, percent + 1], seed=seed)
    small, large = (read(tmp_path / "any", p) for p in (percent, percent + 1))
    assert len(ids(small)) == max(1, count * percent // 100)
    assert set(ids(small)) <= set(ids(large))
    assert set(ids(small, "annotations")) <= set(ids(large, "annotations"))


def test_added_images_change_splits_little(tmp_path):
    folders = {}
    for count in (1000, 1010):
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps(labelled(count)))
        write_splits(path, tmp_path / str(count), percents=[10])
        folders[count] = set(ids(read(tmp_path / str(count), 10)))
    assert len(folders[1000] & folders[1010]) >= 97


@pytest.mark.parametrize("percents", [[], [0], [101], [5, -1]])
def test_percentages_out_of_range_are_refused(source, tmp_path, percents):
    with pytest.raises(ConfigError, match="from 1 to 100"):
        write_splits(source, tmp_path / "splits", percents=percents)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(images=[]), "has no images"),
        (lambda c: c.pop("categories"), "has no categories; .* instances_train2017"),
        (lambda c: c["images"].append({"id": 1}), r"image \d+ \(id 1\): 'id' 1 is listed twice"),
        (lambda c: c["images"].append({"file_name": "x"}), "'id' is missing"),
        (lambda c: c["annotations"].append({"image_id": 0, "id": 5}), "id 5, image 0.*not listed"),
        (lambda c: c["annotations"].append({"id": 5}), "'image_id' is missing"),
        (lambda c: c["info"].update(x=float("nan")), "'info' must be"),
        (lambda c: [i.update(x=float("nan")) for i in c["images"]], r"image \d+ \(id .*'x' must"),
    ],
)
def test_unusable_files_are_named_and_nothing_is_written(source, tmp_path, edit, message):
    content = json.loads(source.read_text())
    edit(content)
    source.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}"):
        write_splits(source, tmp_path / "splits", percents=[1])
    assert not list(tmp_path.glob("splits/*"))


def test_a_truncated_file_is_named(source, tmp_path):
    source.write_text(source.read_text()[:5000])
    with pytest.raises(DataError, match=r"instances\.json: not valid COCO json"):
        write_splits(source, tmp_path / "splits", percents=[1])


def test_command(source, tmp_path, caplog):
    words = ["--ground-truth", source, "--output", tmp_path / "splits"]
    more = ["--percent", "1", "--percent", "20", "--seed", "3"]
    with caplog.at_level("INFO"):
        result = CliRunner().invoke(splits.command, [str(word) for word in words + more])
    assert result.exit_code == 0, result.output
    assert "20 %: 40 images" in caplog.text
    assert sorted(path.name for path in (tmp_path / "splits").iterdir()) == ["1.json", "20.json"]
    assert read(tmp_path / "splits", 20)["info"]["split"]["seed"] == 3
