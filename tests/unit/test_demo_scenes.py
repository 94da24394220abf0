"""The demo's data: files, determinism, and masks that are what the picture shows."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO

from cuvler import masks
from cuvler.errors import DataError
from demo_scenes import catalogue, composition, dataset, generate, litter, surfaces
from demo_scenes.__main__ import command
from demo_scenes.colours import display, hsv, linear
from demo_scenes.noise import SolidNoise, fractal
from demo_scenes.render import render
from demo_scenes.scene import View, draw_stage
from demo_scenes.tracing import coverage, owners, trace
from demo_scenes.tracing import masks as body_masks

KINDS = [
    pytest.param(make_shape, make_material, id=f"{name}{number}")
    for name, (kinds, _) in catalogue.CATEGORIES.items()
    for number, (make_shape, make_material) in enumerate(kinds)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    generate(output, train=5, val=3, seed=3)
    return output


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def solids_by_image(annotations):
    return [
        (image, [a for a in annotations["annotations"] if a["image_id"] == image["id"]])
        for image in annotations["images"]
    ]


class TestFiles:
    def test_layout(self, data):
        names = {str(path) for path in contents(data)}
        expected = {"train/annotations.json", "val/annotations.json"}
        expected |= {f"train/images/{number:012d}.jpg" for number in range(1, 6)}
        expected |= {f"val/images/{number:012d}.jpg" for number in range(1, 4)}
        assert names == expected

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_pycocotools_reads_it(self, data, split):
        coco = COCO(str(data / split / "annotations.json"))
        assert {category["name"] for category in coco.dataset["categories"]} == set(
            catalogue.CATEGORIES
        )
        assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            assert coco.annToMask(annotation).shape == (image["height"], image["width"])
            assert annotation["category_id"] in coco.cats
            assert annotation["iscrowd"] == 0

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_sizes_are_those_of_the_jpegs(self, data, split):
        for image in json.loads((data / split / "annotations.json").read_text())["images"]:
            with Image.open(data / split / "images" / image["file_name"]) as opened:
                assert opened.format == "JPEG"
                assert opened.size == (image["width"], image["height"])

    def test_masks_are_disjoint_and_agree_with_boxes_and_areas(self, data):
        annotations = json.loads((data / "train" / "annotations.json").read_text())
        for image, solids in solids_by_image(annotations):
            assert 1 <= len(solids) <= 5
            decoded = np.stack([masks.decode(solid["segmentation"]) for solid in solids])
            assert decoded.sum(axis=0).max() == 1
            for mask, solid in zip(decoded, solids, strict=True):
                rows, columns = np.nonzero(mask)
                left, top = columns.min(), rows.min()
                width, height = columns.max() + 1 - left, rows.max() + 1 - top
                assert solid["bbox"] == [left, top, width, height]
                assert solid["area"] == mask.sum()
                assert mask.sum() >= composition.SMALLEST * image["width"] * image["height"]


class TestDeterminism:
    def test_workers_do_not_matter(self, data, tmp_path):
        generate(tmp_path, train=5, val=3, seed=3, workers=2)
        assert contents(tmp_path) == contents(data)

    def test_a_picture_does_not_depend_on_how_many_there_are(self, data, tmp_path):
        generate(tmp_path, train=2, val=1, seed=3)
        for split, number in (("train", 2), ("val", 1)):
            name = Path(split, "images", f"{number:012d}.jpg")
            assert (tmp_path / name).read_bytes() == (data / name).read_bytes()

    def test_seeds_and_splits_differ(self, data, tmp_path):
        generate(tmp_path, train=1, val=1, seed=4)
        first = "images/000000000001.jpg"
        pictures = [root / split / first for root in (data, tmp_path) for split in ("train", "val")]
        assert len({path.read_bytes() for path in pictures}) == 4

    def test_running_again_replaces_the_files_by_the_same(self, data, tmp_path):
        generate(tmp_path, train=2, val=1, seed=5)
        before = contents(tmp_path)
        (tmp_path / "train" / "images" / "000000000002.jpg").write_bytes(b"damaged")
        generate(tmp_path, train=2, val=1, seed=5)
        assert contents(tmp_path) == before


class TestInterruption:
    @pytest.fixture
    def fail_at(self, monkeypatch):
        def arrange(call):
            calls = []

            def failing(*arguments):
                calls.append(arguments)
                if len(calls) == call:
                    raise KeyboardInterrupt
                return render(*arguments)

            monkeypatch.setattr(dataset, "render", failing)

        return arrange

    def test_leaves_no_annotations(self, tmp_path, fail_at):
        fail_at(2)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, train=3, val=1)
        assert [path.name for path in contents(tmp_path)] == ["000000000001.jpg"]

    def test_an_earlier_runs_annotations_go_first(self, tmp_path, fail_at):
        generate(tmp_path, train=1, val=1)
        fail_at(1)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, train=1, val=1, seed=1)
        assert not list(tmp_path.rglob("annotations.json"))

    def test_a_finished_split_stays(self, tmp_path, fail_at):
        fail_at(3)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, train=2, val=2)
        assert (tmp_path / "train" / "annotations.json").exists()
        assert not (tmp_path / "val" / "annotations.json").exists()


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "value"), [("train", 0), ("val", -1), ("workers", 0), ("seed", -1)]
    )
    def test_numbers_out_of_range_are_named(self, tmp_path, name, value):
        arguments = ["--output", str(tmp_path / "new"), f"--{name}", str(value)]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2
        assert f"--{name}" in result.output
        assert not (tmp_path / "new").exists()

    def test_a_folder_with_other_pictures_is_refused(self, tmp_path):
        images = tmp_path / "val" / "images"
        images.mkdir(parents=True)
        (images / "000000000009.jpg").touch()
        with pytest.raises(DataError, match=r"val/images: .* 1 files .* 000000000009\.jpg"):
            generate(tmp_path, train=1, val=1)
        assert not (tmp_path / "train").exists()
        result = CliRunner().invoke(command, ["--output", str(tmp_path), "--val", "1"])
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")

    def test_a_file_in_the_folders_place_is_refused(self, tmp_path):
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "images").touch()
        with pytest.raises(DataError, match=r"train/images: not a folder"):
            generate(tmp_path, train=1, val=1)

    def test_the_command_passes_its_options_on(self, tmp_path, monkeypatch):
        seen = {}
        monkeypatch.setattr(
            "demo_scenes.__main__.generate",
            lambda output, **options: seen.update(output=output, **options),
        )
        options = ["--train", "7", "--val", "2", "--seed", "9", "--workers", "3"]
        result = CliRunner().invoke(command, ["--output", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
        assert seen == {"output": tmp_path, "train": 7, "val": 2, "seed": 9, "workers": 3}


@pytest.fixture(scope="module")
def scenes():
    return [composition.compose(np.random.default_rng(seed)) for seed in range(8)]


class TestComposition:
    def test_solids_are_seen_well_enough(self, scenes):
        for stage, bodies, hits, visible in scenes:
            assert len(bodies) == len(hits) == len(visible)
            assert (visible.mean(axis=(1, 2)) >= composition.SMALLEST).all()
            shown = np.bincount(owners(hits, stage.view) + 1, minlength=len(hits) + 1)[1:]
            alone = np.array([hit.index.size for hit in hits])
            assert (shown >= composition.LEAST_VISIBLE * alone).all()

    def test_solids_stand_apart_on_the_ground(self, scenes):
        for _, bodies, _, _ in scenes:
            for number, body in enumerate(bodies):
                assert not composition._collides(body, bodies[:number])

    def test_masks_follow_what_most_samples_show(self, scenes):
        for stage, bodies, hits, visible in scenes:
            owner = owners(hits, stage.view)
            votes = np.stack([coverage(owner, n, stage.view) for n in range(-1, len(bodies))])
            assert (votes.sum(axis=0) == 4).all()
            for number, mask in enumerate(visible):
                assert (mask[votes[number + 1] >= 3]).all()
                assert not (mask & (votes[number + 1] == 0)).any()

    def test_the_picture_shows_the_solids_where_the_masks_are(self, scenes):
        for stage, bodies, hits, visible in scenes[:4]:
            empty = render(stage, [], [], np.random.default_rng(0))
            full = render(stage, bodies, hits, np.random.default_rng(0))
            assert full.shape == (3, *visible.shape[1:])
            assert full.min() >= 0
            assert full.max() <= 1
            # Shadows and the exposure change the brightness elsewhere, but hardly the hue.
            hues = [picture / picture.sum(axis=0) for picture in (empty, full)]
            change = np.abs(hues[1] - hues[0]).sum(axis=0)
            inside = visible.any(axis=0)
            assert np.median(change[inside]) > 3 * np.median(change[~inside])


class TestTracing:
    def test_a_ball_looks_like_its_outline(self):
        view = View(64, 48, 80.0, np.array([0.0, 0.0, -10.0]), np.eye(3))
        body = self.ball_at([0.3, -0.2, 0.0], 1.5)
        found = np.zeros(4 * 64 * 48, bool)
        found[trace(body, view).index] = True
        # A sphere is seen as the directions within asin(radius / distance) of its middle's.
        rows, columns = np.mgrid[:96, :128].astype(np.float32) / 2 + 0.25
        rays = np.stack(view.rays(columns.ravel(), rows.ravel()))
        towards = body.centre() - view.origin
        distance = np.linalg.norm(towards)
        inside = (towards / distance) @ rays > np.cos(np.arcsin(1.5 / distance))
        assert not (inside & ~found).any()
        assert found.sum() <= 1.01 * inside.sum()

    def test_the_nearer_one_hides_the_farther(self):
        view = View(64, 48, 80.0, np.array([0.0, 0.0, -10.0]), np.eye(3))
        near, far = self.ball_at([0, 0, -2], 0.5), self.ball_at([0, 0, 3], 2.0)
        for order in ([near, far], [far, near]):
            owner = owners([trace(body, view) for body in order], view)
            visible = body_masks(owner, 2, view)
            assert visible[order.index(near), 24, 32]
            assert visible[order.index(far), 14, 32]
            assert not visible.all(axis=0).any()

    @staticmethod
    def ball_at(middle, radius):
        rng = np.random.default_rng(0)
        make_shape, make_material = catalogue.CATEGORIES["ball"][0][0]
        material = make_material(hsv(0, 1, 1), hsv(0.5, 1, 1), SolidNoise(rng), rng)
        base = np.array(middle, float) - [0, radius, 0]
        return composition.Body("ball", make_shape(rng), material, np.eye(3), base, radius)


class TestCatalogue:
    @pytest.mark.parametrize(("make_shape", "make_material"), KINDS)
    def test_distances_never_overstep(self, make_shape, make_material):
        # A distance field is safe to trace when it changes no faster than the way gone.
        rng = np.random.default_rng(1)
        shape = make_shape(rng)
        start = rng.uniform(-1.5, 1.5, (3, 4000)).astype(np.float32)
        start[1] += np.float32(shape.middle)
        step = rng.normal(size=start.shape).astype(np.float32)
        step *= np.float32(0.02) / np.linalg.norm(step, axis=0)
        change = np.abs(shape.distance(*(start + step)) - shape.distance(*start))
        assert np.quantile(change, 0.995) <= 0.02 * 1.05

    @pytest.mark.parametrize(("make_shape", "make_material"), KINDS)
    def test_the_bounding_sphere_holds_the_solid(self, make_shape, make_material):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            shape = make_shape(rng)
            points = rng.normal(size=(3, 3000))
            points *= 1.02 * shape.radius / np.linalg.norm(points, axis=0)
            points[1] += shape.middle
            assert shape.distance(*points.astype(np.float32)).min() > 0

    @pytest.mark.parametrize(("make_shape", "make_material"), KINDS)
    def test_solids_rest_on_the_ground(self, make_shape, make_material):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            shape = make_shape(rng)
            x, z = (g.ravel() for g in np.mgrid[-1.5:1.5:60j, -1.5:1.5:60j].astype(np.float32))
            over = shape.distance(x, np.full_like(x, 0.06), z).min()
            under = shape.distance(x, np.full_like(x, -0.06), z).min()
            assert over < 0.03
            assert under > 0

    @pytest.mark.parametrize(("make_shape", "make_material"), KINDS)
    def test_materials_paint_display_colours(self, make_shape, make_material):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            material = make_material(hsv(0.1, 0.8, 0.7), hsv(0.6, 0.5, 0.9), SolidNoise(rng), rng)
            points = rng.uniform(-1, 1, (3, 200)).astype(np.float32)
            colours = material.paint(*points)
            assert colours.shape == (3, 200)
            assert colours.dtype == np.float32
            assert np.isfinite(colours).all()
            assert colours.min() >= 0
            assert colours.max() < 1.5

    @pytest.mark.parametrize(
        "surface",
        sorted({s for pair in catalogue.PLACES for group in pair for s in group}, key=str),
        ids=lambda surface: surface.__name__,
    )
    def test_surfaces_are_textures_that_repeat(self, surface):
        texture = surface(np.random.default_rng(2))
        assert texture.shape == (3, surfaces.SIDE, surfaces.SIDE)
        assert texture.dtype == np.float32
        assert texture.min() >= 0
        assert texture.max() <= 1
        assert texture.std() > 0.005
        for axis in (1, 2):
            steps = np.abs(np.diff(texture, axis=axis)).mean(axis=(0, 3 - axis))
            seam = np.abs(np.take(texture, 0, axis) - np.take(texture, -1, axis)).mean()
            assert seam <= 1.2 * steps.max() + 0.01

    def test_every_place_gives_a_stage(self):
        stages = [draw_stage(np.random.default_rng(seed)) for seed in range(12)]
        assert {stage.wall is None for stage in stages} == {True, False}
        for stage in stages:
            assert stage.view.width % 8 == stage.view.height % 8 == 0
            assert np.allclose(stage.view.axes @ stage.view.axes.T, np.eye(3))
            assert np.isclose(np.linalg.norm(stage.light.direction), 1)


class TestNoise:
    def test_fractal_fills_the_range_and_repeats(self):
        texture = fractal(np.random.default_rng(0), 64, cells=4)
        assert texture.min() == 0
        assert texture.max() == 1
        seam = np.abs(texture[0] - texture[-1]).mean()
        assert seam < 2 * np.abs(np.diff(texture, axis=0)).mean()

    def test_solid_noise_is_smooth(self):
        noise = SolidNoise(np.random.default_rng(0))
        x = np.linspace(-3, 3, 4000, dtype=np.float32)
        values = noise(x, x * 0, x * 0)
        assert 0 <= values.min() < values.max() <= 1
        assert np.abs(np.diff(values)).max() < 0.01

    def test_linear_and_display_undo_each_other(self):
        values = np.linspace(0, 1, 11, dtype=np.float32)
        assert np.allclose(display(linear(values)), values)

    def test_hsv_of_many_is_that_of_each(self):
        hues = np.array([0, 1 / 3, 0.5, 0.9])
        many = hsv(hues, 0.6, 0.8)
        assert many.shape == (4, 3)
        assert np.allclose(many, [hsv(hue, 0.6, 0.8) for hue in hues])
        assert np.allclose(hsv(1 / 3, 1, 0.5), [0, 0.5, 0])

    def test_things_strewn_over_the_border_come_back(self):
        square = 8 * np.array([[[-1, -1], [-1, 1], [1, 1], [1, -1]]], float)
        rng = np.random.default_rng(0)
        white, black = np.ones((1, 3), np.float32), np.zeros(3, np.float32)
        for _ in range(20):
            drawn = litter._strew(rng, black, square, white, ((0, 1, 1),))
            assert 15**2 <= (drawn[0] > 0.5).sum() <= 18**2
