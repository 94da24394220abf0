"""What the pages say is so: settings, messages, links, and a site that builds."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib

import pytest
import snakemake.exceptions
import yaml

from cuvler.config import check
from cuvler.eigenvectors.backbones import BACKBONES
from cuvler.eigenvectors.weights import license_of
from cuvler.image_status import ImageStatus

from .conftest import PAGES, REPOSITORY, SITE, blocks


def test_what_is_written_from_the_settings_is_current():
    script = runpy.run_path(str(REPOSITORY / "docs/configuration.py"))
    for path, text in script["files"]().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python docs/configuration.py"


def test_the_arithmetic_of_gpus_is_current():
    table = runpy.run_path(str(REPOSITORY / "benchmarks/arithmetic.py"))["table"]()
    page = (REPOSITORY / "docs/gpus.md").read_text(encoding="utf-8")
    assert table in page, "docs/gpus.md: copy the table of python benchmarks/arithmetic.py"


def merged(settings, more):
    """Settings as Snakemake extends them by those of a file."""
    if not isinstance(settings, dict) or not isinstance(more, dict):
        return more
    keys = [*settings, *(key for key in more if key not in settings)]
    return {
        key: merged(settings.get(key), more[key]) if key in more else settings[key] for key in keys
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_settings_are_allowed(page):
    defaults = {}
    for name in ("datasets.yaml", "config.yaml"):
        text = (REPOSITORY / "config" / name).read_text(encoding="utf-8")
        defaults = merged(defaults, yaml.safe_load(text))
    for block in blocks(page, "yaml"):
        check(merged(defaults, yaml.safe_load(block)))


def test_examples_for_programs_that_are_not_installed_are_python():
    """FiftyOne brings a database, and RF-DETR the weights of a network; other code is executed."""
    found = set()
    for page in PAGES:
        for block in blocks(page, "py"):
            found.add(ast.parse(block).body[0])
    packages = {getattr(line, "module", None) or line.names[0].name for line in found}
    assert packages == {"fiftyone", "rfdetr"}


def test_the_first_page_can_be_read_in_one_sitting():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_snakemakes_catalogue_finds_what_it_asks_for():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake workflow" in readme
    catalogue = REPOSITORY / ".snakemake-workflow-catalog.yml"
    usage = yaml.safe_load(catalogue.read_text(encoding="utf-8"))["usage"]
    assert usage["software-stack-deployment"]["conda"] == any(REPOSITORY.glob("workflow/envs/*"))
    rules = (path.read_text(encoding="utf-8") for path in REPOSITORY.glob("workflow/rules/*.smk"))
    assert usage["report"] == any("report(" in text for text in rules)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    cited = {reference["url"] for reference in citation["references"]}
    assert cited == set(project["urls"].values())


def templates(path):
    """The texts of a file's errors as patterns: anything may be filled in where code fills in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }

    def pattern(node):
        match node:
            case ast.Constant(value=str(value)):
                return re.escape(value)
            case ast.FormattedValue(value=ast.Name(id=name)) if name in constants:
                return re.escape(constants[name])
            case ast.JoinedStr(values=values):
                return "".join(map(pattern, values))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return pattern(left) + pattern(right)
        return "(?:.|\n)*"

    errors = [
        call.args[-1]
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Error") and call.args
    ]
    found = map(pattern, errors)
    # A text that is all filled in would pass for any message.
    return [text for text in found if len(text.replace("(?:.|\n)*", "")) > 12]


def quoted():
    page = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^    (.+)$", page, re.MULTILINE)


@pytest.fixture(scope="module")
def messages():
    files = (REPOSITORY / "cuvler").rglob("*.py")
    return [template for path in files for template in templates(path)]


@pytest.mark.parametrize("message", quoted())
def test_quoted_messages_are_those_of_the_code(message, messages):
    if message == "LockException:":
        assert snakemake.exceptions.LockException
        return
    # "wrong settings:" is followed by the list of them.
    texts = (message, f"{message}\n")
    assert any(re.fullmatch(template, text) for template in messages for text in texts)


def test_a_message_that_nobody_prints_is_noticed(messages):
    with pytest.raises(AssertionError):
        test_quoted_messages_are_those_of_the_code("…: no such thing, mend it", messages)


def test_the_table_of_backbones_is_that_of_the_code():
    text = (REPOSITORY / "docs/backbones.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.M)
    assert [name for name, _ in rows] == list(BACKBONES)
    for name, row in rows:
        spec = BACKBONES[name]
        timm, feature, size, grid, tau, licence = (cell.strip() for cell in row.split("|"))
        assert timm == (f"`{spec.timm}`" if spec.timm else "none: hand-made descriptors")
        assert feature == (spec.feature if spec.timm else "")
        assert (size, grid) == (str(spec.size), "{} x {}".format(*spec.grid))
        assert tau == ("" if spec.tau is None else str(spec.tau))
        recorded = license_of(spec).partition(";")[0] if spec.timm else ""
        assert licence.lower().replace(" ", "-") == recorded


@pytest.mark.slow
@pytest.mark.parametrize("status", ImageStatus)
def test_every_status_is_explained(status):
    table = (REPOSITORY / "docs/files.md").read_text(encoding="utf-8")
    assert re.search(rf"^\|[^|]*`{status}`", table, re.M)


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    for page in SITE:
        assert (tmp_path / "site" / page.stem.replace("index", "")).exists()
