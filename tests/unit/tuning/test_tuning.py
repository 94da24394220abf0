import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cuvler.cli import cuvler as cli
from cuvler.config.files import read
from cuvler.discovery import discover, load_backbones
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.errors import ConfigError, DataError
from cuvler.evaluation import evaluate
from cuvler.image_files import find_files
from cuvler.masks import encode, geometry
from cuvler.pseudo_masks.methods import find_method, method_names
from cuvler.tuning import Truth, config_snippet, settings_grid, try_settings
from cuvler.tuning.truth import result_records

P16, P14 = (backbone_spec(name) for name in ("pixels_p16", "pixels_p14"))


def settings_of(rows):
    return [setting for row in rows for setting in row.settings]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two pictures of squares in folders of their own, and their ground truth with two others."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, squares in enumerate([[(20, 20), (90, 60)], [(50, 40)]], start=1):
        pixels = rng.normal((70, 120, 60), 8, (120, 160, 3)).clip(0, 255).astype(np.uint8)
        for left, top in squares:
            pixels[top : top + 40, left : left + 40] = (210, 40, 40) if left < 60 else (40, 40, 220)
            mask = np.zeros((120, 160), bool)
            mask[top : top + 40, left : left + 40] = True
            rle = encode(mask)
            record = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            annotations.append(record | {"iscrowd": 0, "segmentation": rle} | geometry(rle))
        path = folder / f"photos/{number}/scene.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(path)
        name = path.relative_to(folder / "photos").as_posix()
        images.append({"id": number, "file_name": name, "width": 160, "height": 120})
    images += [{"id": n, "file_name": f"{n}.png", "width": 160, "height": 120} for n in (3, 4)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (folder / "truth.json").write_text(json.dumps(content))
    return folder


def run(*words):
    return CliRunner().invoke(cli, ["tune", *map(str, words)], catch_exceptions=False)


class TestGrid:
    def test_every_combination_is_there_once(self):
        rows = settings_grid(
            ["votecut", "maskcut"],
            [P16, P14],
            sizes=(480, 320, 470),
            taus=(0.3, 0.1, 0.3),
            values={"n": [2, 5, 2], "tau_m": [0.2, 0.4]},
        )
        settings = settings_of(rows)
        assert len(set(settings)) == len(settings)
        assert all([s.tau for s in row.settings] == [0.1, 0.3] for row in rows)
        # For patches of 14 pixels, 480 and 470 are both 476.
        assert {s.specs[0].size for s in settings if s.specs[0].name == P16.name} == {480, 464, 320}
        tried = {(s.method.n, s.specs) for s in settings if s.method.name == "maskcut"}
        # Two n, three sizes of one backbone and two of the other; never both backbones at once.
        assert len(tried) == 2 * (3 + 2)
        assert {len(s.specs) for s in settings if s.method.name == "votecut"} == {1, 2}

    def test_the_defaults_have_every_method_of_the_registry(self):
        rows = settings_grid(method_names(), [P16])
        assert {row.settings[0].method.name for row in rows} == set(method_names())
        for row in rows:
            taus = [setting.tau for setting in row.settings]
            assert taus == ([0.05, 0.15, 0.3, 0.5] if row.settings[0].has_graph else [None])
        labels = [row.label for row in rows]
        assert {"maskcut, n 3", "maskcut, n 10, stop at background"} <= set(labels)
        assert len(set(labels)) == len(labels)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"n": [0]}, r"maskcut\.n: 0 is not allowed"),
            ({"n": ["two"]}, r"maskcut\.n: 'two' is not allowed"),
            ({"ks": [(2,)]}, "maskcut has the setting 'ks'"),
        ],
    )
    def test_values_that_do_not_fit(self, values, message):
        with pytest.raises(ConfigError, match=message):
            settings_grid(["maskcut"], [P16], values=values)


class TestTrials:
    @pytest.mark.slow
    def test_features_are_extracted_once_and_snippets_make_the_same_masks(
        self, scenes, tmp_path, monkeypatch
    ):
        image = Image.open(scenes / "photos/1/scene.png")
        rows = settings_grid(
            ["votecut", "maskcut"], [P16], sizes=(160, 240), taus=(0.1,), values={"n": [1]}
        )
        specs = list(dict.fromkeys(s.specs[0] for s in settings_of(rows)))
        loaded = load_backbones(specs, weights={}, device="cpu", instead=[])
        extracted = []
        monkeypatch.setattr(
            "cuvler.tuning.trials.extract_features",
            lambda image, backbone: (
                extracted.append(backbone.spec) or backbone.features(backbone.prepare(image)[None])
            ),
        )
        found = try_settings(image, rows, dict(zip(specs, loaded, strict=True)))
        assert extracted == specs
        assert list(found.trials) == settings_of(rows)
        for setting, trial in found.trials.items():
            (tmp_path / "tuned.yaml").write_text(config_snippet(setting))
            config = read([tmp_path / "tuned.yaml"])
            method = config.pseudo_masks.method(setting.method.name)
            again = discover(
                image,
                method=method.name,
                backbones=[*method.needs()],
                definitions=config.eigenvectors.definitions,
                **{name: getattr(method, name) for name in method.settings()},
            )
            assert [encode(m.mask) for m in again] == [encode(m.mask) for m in trial.masks]

    def test_a_uniform_image(self):
        rows = settings_grid(["maskcut"], [P16])
        found = try_settings(Image.new("RGB", (64, 48), "teal"), rows, {})
        assert found.is_uniform
        assert all(trial.masks == [] for trial in found.trials.values())


class TestTruth:
    def test_scores_are_those_of_the_named_images_alone(self, scenes):
        files = find_files([scenes / "photos"])
        truth = Truth(scenes / "truth.json", files)
        assert [image.image_id for image in truth.images.values()] == [1, 2]
        objects = {file.path: truth.masks(file.path, (160, 120)) for file in files}
        assert [len(masks) for masks in objects.values()] == [2, 1]

        def records(count):
            masks = [type("Mask", (), {"mask": mask, "score": 1.0}) for mask in objects[first]]
            return result_records(masks[:count])

        first = files[0].path
        assert truth.score({first: records(2)}) == truth.score({first: records(2)})
        assert truth.score({first: records(2)}).ap == pytest.approx(100)
        whole = {file.path: records(1) if file.path == first else [] for file in files}
        content = json.loads((scenes / "truth.json").read_text())
        content["images"] = content["images"][:2]
        results = [record | {"image_id": 1} for record in records(1)]
        expected = evaluate(content, results, iou_type="segm")
        assert truth.score(whole).ap == pytest.approx(expected["AP"])
        assert truth.score(whole).ap50 == pytest.approx(expected["AP50"])

    def test_an_image_is_found_by_the_end_of_its_path(self, scenes, tmp_path):
        truth = scenes / "truth.json"
        named = find_files([scenes / "photos/2/scene.png"])
        assert next(iter(Truth(truth, named).images.values())).image_id == 2
        for name, message in [("scene.png", "2 images can be"), ("5.png", r"has no image 5\.png")]:
            Image.new("RGB", (160, 120)).save(tmp_path / name)
            with pytest.raises(DataError, match=rf"truth\.json: .*{message}"):
                Truth(truth, find_files([tmp_path / name]))


def test_a_snippet_is_a_config_that_makes_the_same_masks(tmp_path):
    rows = settings_grid(method_names(), [P16, P14], sizes=(480, 320), taus=(0.25,))
    for setting in settings_of(rows)[::2]:
        (tmp_path / "tuned.yaml").write_text(config_snippet(setting))
        comment = config_snippet(setting).partition("\n")[0].removeprefix("# with ")
        (tmp_path / "recipe.yaml").write_text(comment)
        recipes = read([tmp_path / "recipe.yaml"]).recipes
        assert recipes["cuvler"].method == setting.method.name
        config = read([tmp_path / "tuned.yaml"])
        assert config.pseudo_masks.method(setting.method.name) == setting.method
        for spec in setting.specs:
            configured = backbone_spec(spec.name, config.eigenvectors.definitions)
            assert configured.size == spec.size
            if setting.tau is not None:
                assert configured.graph()["tau"] == setting.tau


SMALL = ("--backbone", "pixels_p16", "--size", 160, "--tau", 0.1, "--tau", 0.4)


def test_the_command_scores_settings_and_writes_the_best(scenes, tmp_path):
    truth = ("--ground-truth", scenes / "truth.json")
    result = run(scenes / "photos", *SMALL, "--n", 1, *truth, "--output", tmp_path / "o")
    assert result.exit_code == 0, result.output
    snippet = (tmp_path / "o/tuned.yaml").read_text()
    assert result.output.endswith(snippet)
    assert "AP50" in result.output
    assert read([tmp_path / "o/tuned.yaml"]).eigenvectors.definitions["pixels_p16"].size == 160
    written = {path.relative_to(tmp_path / "o").as_posix() for path in tmp_path.rglob("o/**/*.*")}
    assert written == {"tune.html", "tuned.yaml", "1/scene.tune.png", "2/scene.tune.png"}
    page = (tmp_path / "o/tune.html").read_text()
    rows = settings_grid(method_names(), [P16], sizes=(160,), taus=(0.1, 0.4), values={"n": [1]})
    count = len(settings_of(rows))
    assert page.count("data:image/webp") == 2 * (count + 2)  # the image and the ground truth
    assert page.count('class="best"') == 2 + 1  # a picture of each image, and the table
    for row in rows:
        assert row.label in page


def test_without_ground_truth_there_is_no_best(scenes, tmp_path):
    one = scenes / "photos/2/scene.png"
    result = run(one, *SMALL, "--method", "votecut", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"tune.html", "scene.tune.png"}
    page = (tmp_path / "tune.html").read_text()
    assert "<table" not in page
    assert page.count("<pre>") == 2
    with Image.open(tmp_path / "scene.tune.png") as sheet:
        assert sheet.width > 2 * 160
        assert sheet.height > 2 * 120


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backbone", "pixels_16"), "did you mean pixels_p16"),
        (("--backbone", "pixels_p16", "--ks", 2, "--method", "maskcut"), "has the setting 'ks'"),
        (("--backbone", "pixels_p16", "--tau", 0.2, "--method", "agglomerative"), "has a tau"),
        (("--backbone", "pixels_p16", "--weights", "dino_b8={}"), "'dino_b8' are given, but"),
    ],
)
def test_bad_options(scenes, tmp_path, words, message):
    path = tmp_path / "x.safetensors"
    path.touch()
    words = [str(word).format(path) for word in words]
    with pytest.raises(ConfigError, match=message):
        run(scenes / "photos", *words, "--output", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_settings_of_every_method_are_options():
    help_ = run("--help").output
    for name in method_names():
        for setting in find_method(name).settings():
            assert f"--{setting.replace('_', '-')}" in help_


def test_an_image_that_cannot_be_opened_is_an_error_at_the_end(scenes, tmp_path):
    (tmp_path / "bad.png").write_text("no")
    paths = (tmp_path / "bad.png", scenes / "photos/2/scene.png")
    with pytest.raises(DataError, match="of 2 images 1 could not be opened"):
        run(*paths, *SMALL, "--method", "votecut", "--output", tmp_path / "o")
    assert (tmp_path / "o/tune.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_screen_and_needs_no_network(browser, scenes, tmp_path, width):
    one = scenes / "photos/1/scene.png"
    truth = ("--ground-truth", scenes / "truth.json")
    run(one, *SMALL, *truth, "--output", tmp_path)
    page = (tmp_path / "tune.html").as_uri()
    browser.open(page, width)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert [url for url in browser.requests if not url.startswith("data:")] == [page]
    browser.click(".panel", 2)
    caption = browser.run("document.querySelector('#viewer figcaption').textContent")
    assert caption.startswith("votecut, pixels_p16, 160 px · tau 0.1 · ")
    assert browser.complaints == []
