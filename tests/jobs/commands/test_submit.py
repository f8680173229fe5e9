"""What `resca submit` refuses before it uploads anything, and what it sends along."""

import asyncio
import shlex
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from jobs.__main__ import main, parse
from jobs.commands.follow import follow
from jobs.commands.job import packaged
from jobs.commands.submit import job_of
from jobs.commands.submit_scaling import job_of as scaling_job_of
from jobs.errors import InfrastructureError


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("red\n")
    (tmp_path / "mine.json").write_text('{"name": "mine", "schedule": {"kind": "interval", "every": 3}}')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "videos"], "--out videos is a relative path"),
        (["--dashboard", "127.0.0.1:8265"], "should be a URL, such as http://127.0.0.1:8265"),
        (["--method", "none.yaml"], "cannot read the recipe none.yaml"),
        (["--method", "auto", "--plan", "none.yaml"], "cannot read the recipe none.yaml"),
        (["--json", "rows.json"], "--json and --address are for render"),
        (["--address", "auto"], "--json and --address are for render"),
    ],
)
def test_bad_input_is_one_sentence(place, capsys, words, told):
    assert main(["submit", "p.txt", "--out", "/shared/videos", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1


def test_recipes_go_with_the_job_under_their_kind_of_file(place):
    options = parse(["submit", "p.txt", "--out", "/shared/videos", "--method", "mine.json", "--ring", "2"])
    with packaged(job_of(options)) as folder:
        assert {"prompts.txt", "recipe.json", "jobs", "cluster"} <= {path.name for path in folder.iterdir()}
    assert "--method recipe.json" in job_of(options).entrypoint and "--ring 2" in job_of(options).entrypoint


def test_how_weights_are_kept_goes_with_the_job(place):
    options = parse(["submit", "p.txt", "--out", "/shared/videos", "--weights", "fp8"])
    assert parse(shlex.split(job_of(options).entrypoint)[3:]).weights == "fp8"


def test_each_variable_of_the_ranks_goes_with_the_job(place):
    options = parse(["submit", "p.txt", "--out", "/shared/videos", "--env", "A=1 2", "--env", "B=-x"])
    assert "--env 'A=1 2' --env B=-x" in job_of(options).entrypoint
    assert parse(shlex.split(job_of(options).entrypoint)[3:]).env == ("A=1 2", "B=-x")


def test_who_is_told_goes_with_the_job_as_it_was_given(place):
    told = ["--on-end", "sh -c 'cat > \"$HOME/a b\"; echo $?'", "--price", "2.5", "--progress", "jsonl"]
    options = parse(["submit", "p.txt", "--out", "/shared/videos", *told])
    asked = parse(shlex.split(job_of(options).entrypoint)[3:])
    assert (asked.on_end, asked.price, asked.progress) == (told[1], 2.5, "jsonl")


def test_a_notice_that_no_machine_could_send_is_refused_here(place, capsys):
    assert main(["submit", "p.txt", "--out", "/shared/videos", "--on-end", "https://a b"]) == 2
    assert "--on-end is no URL that can be posted to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--out out/scaling is a relative path"),
        (["--out", "/shared/scaling", "--report", "report"], "--report report is a relative path"),
        (["--out", "/shared/scaling", "--json", "rows.json"], "--json rows.json is a relative path"),
        (["--out", "/shared/scaling", "--layouts", "two"], "--layouts takes ULYSSESxRING"),
        (["--out", "/shared/scaling", "--gangs", "0"], "--gangs must be at least 1"),
        (["--out", "/shared/scaling", "--method", "none.yaml"], "cannot read the recipe none.yaml"),
        (["--out", "/shared/scaling", "--prompts", "none.txt"], "none.txt"),
        (["--out", "/shared/scaling", "--model", "."], "--model . is a relative path"),
        (["--out", "/shared/scaling", "--address", "auto"], "--address is for scaling"),
        (["--out", "/shared/scaling", "--dashboard", "127.0.0.1:8265"], "should be a URL"),
    ],
)
def test_bad_input_to_a_measurement_is_one_sentence(place, capsys, words, told):
    assert main(["submit", "scaling", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1


def test_a_measurement_goes_with_its_prompts_and_recipe(place):
    words = ["--layouts", "8x1,8x2", "--gangs", "2,4", "--prompts", "p.txt", "--method", "mine.json", "--steps", "9"]
    places = ["--out", "s3://bucket/scaling", "--report", "/tmp/report", "--nodes", "8xCPU=96,GPU=8"]
    job = scaling_job_of(parse(["submit", "scaling", *words, *places]))
    asked = parse(shlex.split(job.entrypoint)[3:])
    assert (asked.layouts, asked.gangs, asked.video.steps, asked.address) == ("8x1,8x2", "2,4", 9, "auto")
    assert (str(asked.prompts), asked.method, asked.nodes) == ("prompts.txt", "recipe.json", "8xCPU=96,GPU=8")
    assert (asked.out, str(asked.report)) == ("s3://bucket/scaling", "/tmp/report")
    assert {name: path.name for name, path in job.files.items()} == {"prompts.txt": "p.txt", "recipe.json": "mine.json"}


class CutOff:
    """Ray's client when the tunnel is gone."""

    async def tail_job_logs(self, submission: str):
        yield "the first line\n"
        raise RuntimeError("WebSocket connection closed unexpectedly")


def test_a_job_that_cannot_be_seen_any_more_is_left_alone(capsys):
    with pytest.raises(InfrastructureError, match=r"not followed any more, but goes on.*closed unexpectedly"):
        follow(CutOff(), "resca-1", patience_s=-1)
    assert capsys.readouterr().out == "the first line\n"


class Quiet:
    """Ray's client for a job that says nothing for longer than the patience, whose connection then breaks once."""

    def __init__(self):
        self.num_asked = 0

    async def tail_job_logs(self, submission: str):
        self.num_asked += 1
        yield "the first line\n"
        if self.num_asked == 1:
            await asyncio.sleep(0.6)
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "the last line\n"

    def get_job_info(self, submission: str) -> JobDetails:
        return JobDetails(type=JobType.SUBMISSION, entrypoint="", status=JobStatus.SUCCEEDED)


def test_a_quiet_job_has_the_whole_patience_when_its_connection_breaks(capsys, monkeypatch):
    monkeypatch.setattr("jobs.commands.follow.PAUSE_S", 0.0)
    assert follow(Quiet(), "resca-1", patience_s=0.5).status is JobStatus.SUCCEEDED
    assert capsys.readouterr().out == "the first line\nthe last line\n"
