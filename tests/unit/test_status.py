import os
import time
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from cuvler.cli import cuvler
from cuvler.commands import status as status_command
from cuvler.errors import ConfigError, DataError
from cuvler.kept_plan import keep, read_kept, sources_state
from cuvler.layout import FILES
from cuvler.listing import list_images, write_listing
from cuvler.status import read_plan, stages

NOW = 1_800_000_000.0
HEADER = "output_file\tdate\trule\tlog-file(s)\tinput-file(s)\tshellcmd\tstatus\tplan\n"
SUMMARY = (
    HEADER
    + """\
r/coco_metrics.json\t-\tmetrics\t-\t-\t-\tmissing\tupdate pending
r/images/coco.parquet\tSat\timages\tr/logs/images/coco.log\t\tcuvler images 'a\tb'\tok\tno update
r/pseudo_masks/coco/votecut/10.json\tSat\tpseudo_masks\t-\t-\t-\tok\tupdate pending
r/pseudo_masks/coco/votecut/2.json\tSat\tpseudo_masks\t-\t-\t-\tok\tno update
"""
)


def test_the_plan_is_read_in_the_order_of_the_data():
    plan = read_plan(SUMMARY)
    assert [(rule, path.name, done) for rule, path, done in plan] == [
        ("images", "coco.parquet", True),
        ("pseudo_masks", "2.json", True),
        ("pseudo_masks", "10.json", False),
        ("metrics", "coco_metrics.json", False),
    ]


class Run:
    """What a run leaves behind: 4 shards of 100 images, and a detector."""

    def __init__(self, folder):
        self.results = folder / "results"
        listing = pd.DataFrame({"image_id": range(400), "file_name": "x", "shard": 0})
        listing["shard"] = listing["image_id"] // 100
        self.results.joinpath("images").mkdir(parents=True)
        write_listing(listing, self.results / "images/coco.parquet")
        self.plan = [("images", self.results / "images/coco.parquet", True)]
        self.plan += [
            (
                "eigenvectors",
                self.results / f"eigenvectors/coco/votecut/dino_s8/{n}.zarr.zip",
                False,
            )
            for n in range(4)
        ]
        self.detector = self.results / "detectors/cuvler_round0/model_final.pth"

    def done(self, index, seconds=None):
        rule, output, _ = self.plan[index]
        self.plan[index] = rule, output, True
        if seconds is not None:
            path = FILES[rule].benchmark_of(output, self.results)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"s\th:m:s\n{seconds}\t0:00:10\n")

    def log(self, index, text, *, age=10):
        rule, output, _ = self.plan[index]
        path = FILES[rule].log_of(output, self.results)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (NOW - age, NOW - age))

    def stage(self, rule="eigenvectors"):
        return next(stage for stage in stages(self.plan, NOW) if stage.rule == rule)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_nothing_has_begun(run):
    stage = run.stage()
    assert stage.name == "coco/votecut/dino_s8"
    assert [job.state for job in stage.jobs] == ["waiting"] * 4
    assert stage.images == (0, 400, 0)
    assert stage.eta() is None
    assert run.stage("images").done
    assert stages([], NOW) == []


def test_done_running_failed_quiet_and_waiting(run):
    run.done(1, seconds=50)
    run.log(1, "x: 98 ok, 2 unreadable, 0 missing; 3 solved densely")
    run.log(2, "10:00:00 INFO 40 of 100 images, 2.5 a second, 24.0 s left\n")
    run.log(3, "Traceback (most recent call last):\n  File\ncuvler.errors.DataError: x.pth: torn\n")
    run.log(4, "10:00:00 INFO 40 of 100 images, 2.5 a second, 24.0 s left\n", age=7200)
    stage = run.stage()
    assert [job.state for job in stage.jobs] == ["done", "running", "failed", "quiet"]
    assert stage.images == (140, 400, 2)
    assert stage.jobs[2].error == "cuvler.errors.DataError: x.pth: torn"
    # 260 images at the 2 a second of the job that is done.
    assert stage.eta() == pytest.approx(130)


def test_a_job_to_be_done_again_is_not_running(run):
    run.log(1, "10:00:00 INFO 100 images: 100 ok")
    run.plan[1][1].parent.mkdir(parents=True)
    run.plan[1][1].write_text("of other settings")
    assert run.stage().jobs[0].state == "waiting"


def test_a_speed_is_taken_from_running_jobs_where_none_is_done(run):
    run.log(1, "INFO 40 of 100 images, 2 a second, x\nINFO 50 of 100 images, 4 a second, x\n")
    run.log(2, "INFO 10 of 100 images, 1e+01 a second, x\n")
    stage = run.stage()
    assert stage.images == (60, 400, 0)
    assert stage.eta() == pytest.approx(340 / (7 * 2))  # two jobs of 7 a second on average


def test_a_message_for_users_is_an_error_and_a_warning_is_not(run):
    run.log(1, "INFO loading\nError: results/x.json: no such file\n")
    run.log(2, "WARNING 3.jpg: Error while reading; ValueError was raised\n")
    first, second = run.stage().jobs[:2]
    assert (first.state, first.error) == ("failed", "Error: results/x.json: no such file")
    assert second.state == "running"


def test_detectors_say_themselves_when_they_are_done(run):
    run.plan.append(("detector", run.detector, False))
    run.log(5, "INFO  eta: 1 day, 2:03:04  iter: 19  total_loss: 3\n")
    assert run.stage("detector").eta() == 86400 + 7384
    run.plan.append(("detector", run.results / "detectors/cuvler_round1/model_final.pth", False))
    assert run.stage("detector").eta() is None  # nobody knows of the second round
    run.log(5, "")
    run.done(5, seconds=1000)
    assert run.stage("detector").eta() == 1000


def test_a_job_of_several_files_is_one(run):
    tables = [run.results / "table.csv", run.results / "table.md"]
    run.plan += [("table", tables[0], True), ("table", tables[1], False)]
    assert [job.state for job in run.stage("table").jobs] == ["waiting"]
    run.plan[-1] = ("table", tables[1], True)
    assert run.stage("table").done


def test_a_rule_of_the_users_own_is_a_stage(run):
    run.plan.append(("collage", run.results / "collages/coco.png", False))
    assert [job.state for job in run.stage("collage").jobs] == ["waiting"]
    assert [stage.rule for stage in stages(run.plan, NOW)] == ["images", "eigenvectors", "collage"]


def test_a_benchmark_that_is_being_written_is_no_benchmark(run):
    run.done(1, seconds=50)
    path = run.results / "benchmarks/eigenvectors/coco/votecut/dino_s8/0.tsv"
    for torn in ("", "s\th:m:s\n"):
        path.write_text(torn)
        assert run.stage().jobs[0].seconds is None


def test_a_listing_that_is_damaged_is_named(run):
    (run.results / "images/coco.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"coco\.parquet: not a listing"):
        run.stage()


def test_the_command_prints_a_line_a_stage(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def summary(arguments):
        assert arguments == ("all", "--configfile", "a.yaml", "b.yaml")
        words = {True: "ok\tno update", False: "missing\tupdate pending"}
        return HEADER + "".join(f"{p}\t-\t{r}\t-\t-\t-\t{words[d]}\n" for r, p, d in run.plan)

    monkeypatch.setattr(status_command, "summary", summary)
    run.plan.append(("detector", run.detector, False))

    def printed(status=0):
        words = ["status", "all", "--configfile", "a.yaml", "b.yaml"]
        result = CliRunner().invoke(cuvler, words)
        assert result.exit_code == status, result.output
        return result.output

    assert "No estimate yet of eigenvectors, detector." in printed()
    run.done(1, seconds=50)
    run.log(1, "x: 98 ok, 2 unreadable")
    run.log(2, "Error: torn\n")
    output = printed(status=1)
    assert (
        "eigenvectors coco/votecut/dino_s8  1/4   100/400  2         1 failed  2 min 30 s" in output
    )
    assert "eigenvectors/coco/votecut/dino_s8/1.log: Error: torn" in output
    assert "About 2 min 30 s left" in output
    assert "not counting detector, which" in output
    run.plan.append(("detector", run.results / "detectors/cuvler_round1/model_final.pth", False))
    run.log(5, "INFO  eta: 0:03:51  iter: 139  total_loss: 3\n")
    assert "1 running  over 3 min 51 s" in printed(status=1)
    for index in range(1, 7):
        run.done(index)
    assert "All is done." in printed()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A plan is kept: two finished files, two pending ones, of which one is of an earlier run."""
    monkeypatch.chdir(tmp_path)
    for folder in (".snakemake", "config", "photos"):
        (tmp_path / folder).mkdir()
    for file in ("config/config.yaml", "photos/a.jpg", "truth.json"):
        (tmp_path / file).write_text("a: 1")
    write_listing(list_images("photos"), "results/images")
    for file in ("results/merged", "results/report"):
        Path(file).write_text("old")
        os.utime(file, (1, 1))
    listed = "\tcuvler images --image-root photos --output results/images\tok\tno update"
    rows = {
        "images": listed,
        "merged": "truth.json,results/images\t-\tok\tno update",
        "annotations": "-\t-\tmissing\tupdate pending",
        "report": "-\t-\tupdated input files\tupdate pending",
    }
    keep_rows(rows)
    return rows


def keep_rows(rows, arguments=("all", "--configfile=config/config.yaml")):
    def date(path):
        return time.ctime(path.stat().st_mtime) if path.exists() else "-"

    lines = [
        f"results/{rule}\t{date(Path('results', rule))}\t{rule}\t-\t{rest}\n"
        for rule, rest in rows.items()
    ]
    keep(arguments, HEADER + "".join(lines), sources_state(arguments))


def kept_now(arguments=("all", "--configfile=config/config.yaml")):
    """The files that are done by the kept plan; None without one that holds."""
    plan = read_kept(arguments)
    return None if plan is None else {path.name for _, path, done in plan if done}


def test_a_kept_plan_has_what_was_made_since(kept):
    assert kept_now() == {"images", "merged"}
    Path("results/annotations").touch()
    assert kept_now() == {"images", "merged", "annotations"}
    Path("results/annotations").unlink()
    os.utime("results/report", (2, 2))  # made again
    assert kept_now() == {"images", "merged", "report"}
    Path("results/annotations").touch()
    assert kept_now() is None  # that all is done, Snakemake must say
    keep_rows(dict.fromkeys(kept, "-\t-\tok\tno update"))
    assert kept_now() == {"images", "merged", "annotations", "report"}


def test_a_file_that_is_made_while_snakemake_plans_is_done(kept):
    lines = f"results/annotations\t-\tannotations\t-\t{kept['annotations']}\n"
    lines += f"results/report\t-\treport\t-\t{kept['report']}\n"
    Path("results/annotations").touch()
    Path("results/report").unlink()
    keep(["all"], HEADER + lines, sources_state(["all"]))
    assert kept_now(["all"]) == {"annotations"}


CHANGES = {
    "config": lambda: Path("config/config.yaml").write_text("a: 10"),
    "a new rule": lambda: Path("Snakefile").touch(),
    "finished file gone": lambda: Path("results/merged").unlink(),
    "finished file made again": lambda: os.utime("results/merged", (2, 2)),
    "listed again": lambda: os.utime("results/images", (2, 2)),
    "image added": lambda: Path("photos/b.jpg").touch(),
    "user's file changed": lambda: os.utime("truth.json", (2, 2)),
    "damaged": lambda: [p.write_text("[]") for p in Path(".snakemake/cuvler_plans").iterdir()],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_kept_plan_that_may_differ_is_not_used(kept, change):
    CHANGES[change]()
    assert kept_now() is None


def test_a_kept_plan_is_of_its_arguments(kept):
    assert kept_now(["another"]) is None


def test_a_config_given_with_an_equals_sign_is_noticed(kept):
    Path("mine.yaml").write_text("a: 1")
    keep_rows(kept, ["--configfile=mine.yaml"])
    assert kept_now(["--configfile=mine.yaml"])
    Path("mine.yaml").write_text("a: 10")
    assert kept_now(["--configfile=mine.yaml"]) is None


def test_a_kept_plan_is_used_for_an_hour(kept, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3000)
    assert kept_now()
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    assert kept_now() is None


def test_where_there_is_no_workflow_the_message_says_where_to_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = str(CliRunner().invoke(cuvler, ["status"]).exception)
    assert f"{tmp_path} has no workflow; run this in the folder" in message


def test_a_config_that_snakemake_refuses_is_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cuvler, ["status", "--configfile", "missing.yaml"])
    assert isinstance(result.exception, ConfigError)
    message = str(result.exception)
    assert "Snakemake cannot plan this run" in message
    assert "missing.yaml" in message
    assert "Traceback" not in message
