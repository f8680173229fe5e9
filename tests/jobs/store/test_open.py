"""Which directory or URL is meant by what was given, and what can be meant by nobody."""

import pytest

from jobs.__main__ import main
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.store.open import open_storage


@pytest.mark.parametrize(
    "arguments, what",
    [
        ("good.txt --out s3:/bucket/x", "s3:/bucket/x is no URL, as one slash is missing: s3://bucket/x; a directory"),
        (
            "good.txt --out gs:x",
            "gs:x is no URL, as two slashes are missing: gs://x; a directory of that",
        ),
        ("good.txt --out s3:\\b\\c", "is no URL, as two slashes are missing: s3://b/c"),
        ("good.txt --out FILE:x", "is no URL, as two slashes are missing: file:///x"),
        ("good.txt --out file:/tmp/x", "is no URL, as one slash is missing: file:///tmp/x"),
        ("good.txt --out=", "the output directory has no name; give a path or a URL such as s3://bucket/videos"),
        ("good.txt --out=~nobody-of-this-name/x", "the home directory in ~nobody-of-this-name/x is not known"),
        ("good.txt --plan=", "Error parsing --plan: the name of a file or directory is empty"),
        ("good.txt --plan=~nobody-of-this-name/x", "Error parsing --plan: the home directory in ~nobody-of-this-name"),
        ("good.txt --json=", "Error parsing --json: the name of a file or directory is empty"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(tmp_path, monkeypatch, capsys, arguments, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text("a red ball\n")
    try:
        code = main(["plan", "--out", "out", *arguments.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and what in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["good.txt"]


def test_the_letters_of_a_scheme_may_be_of_any_case(tmp_path):
    assert open_storage("S3://Bucket/x").url == "s3://Bucket/x"
    assert open_storage(f"FILE://{tmp_path}").url == str(tmp_path)
    assert open_storage("run:1").url.endswith("/run:1")


@pytest.mark.parametrize("verb", ["status", "retry", "cancel"])
@pytest.mark.parametrize("out, what", [("", "has no name"), ("s3:/bucket/x", "one slash is missing: s3://bucket/x")])
def test_every_command_refuses_a_directory_that_was_not_meant(capsys, verb, out, what):
    assert main([verb, out]) == 2
    assert what in capsys.readouterr().err


def test_the_home_directory_is_known_wherever_a_path_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--out=~/videos", "--model=~/model", "--method=~/mine.yaml", "--json=~/rows.json"]
    options = parse(["render", "~/p.txt", *words])
    assert isinstance(options, RenderOptions)
    assert open_storage(options.out).url == f"{tmp_path}/videos"
    assert (options.model, options.method) == (f"{tmp_path}/model", f"{tmp_path}/mine.yaml")
    assert (options.prompts, options.json) == (tmp_path / "p.txt", tmp_path / "rows.json")
    assert open_storage("~/videos").url == f"{tmp_path}/videos" and open_storage("./~/videos").url.endswith("/~/videos")
