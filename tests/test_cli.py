from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from seqrec import __version__
from seqrec.cli import app
from seqrec.errors import SeqrecError


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_version_in_both_spellings():
    assert invoke("--version").output.strip() == f"seqrec {__version__}"
    out = subprocess.run([sys.executable, "-m", "seqrec", "--version"], capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"seqrec {__version__}"


def test_the_command_line_starts_without_torch():
    """Help is quick: heavy libraries are imported by the command that needs them."""
    program = "import sys, seqrec.cli; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("command", ["data check", "data download", "prepare", "migrate", "train", "evaluate", "benchmark", "report", "recommend"])
def test_every_command_has_help(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, "-m", "seqrec", "train", "--data", str(tmp_path / "absent.csv"), "--model", "hrm"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "absent.csv" in run.stderr
    assert "Traceback" not in run.stderr


def test_csv_to_recommendations_in_one_command(ring_csv, tmp_path):
    result = invoke("-q", "recommend", ring_csv, "--model", "markov", "-s", "i1,i2", "-k", 1, "--save", tmp_path / "model")
    assert "i3" in result.output
    again = invoke("-q", "recommend", tmp_path / "model", "-u", "u1", "-u", "u2", "-k", 2, "--seen", "--write", tmp_path / "out.csv")
    assert again.exit_code == 0
    assert pl.read_csv(tmp_path / "out.csv")["user_id"].to_list() == ["u1", "u1", "u2", "u2"]


def test_train_evaluate_and_top_k(ring_csv, tmp_path):
    out = tmp_path / "out"
    result = invoke("-q", "train", "--data", ring_csv, "--model", "hrm", "-o", out, "model.width=8", "train.epochs=2", "split.name=leave_one_out")
    assert "ndcg@10" in result.output
    result = invoke("-q", "evaluate", out, "--write-topk", tmp_path / "top.parquet", "--write", tmp_path / "table.md")
    assert "recall@20" in result.output
    assert (tmp_path / "table.md").read_text().startswith("# hrm")
    assert pl.read_parquet(tmp_path / "top.parquet").columns == ["user_id", "item_id", "rank"]
    with pytest.raises(SeqrecError, match="either --conf FILE or --data LOG"):
        invoke("train")


def test_data_check_and_prepare(ring_csv, tmp_path):
    result = invoke("data", "check", ring_csv, "--write", tmp_path / "check.json")
    assert result.exit_code == 0
    assert "60" in result.output
    result = invoke("prepare", ring_csv, tmp_path / "prepared")
    assert "900 events of 60 users and 12 items" in result.output


def test_prepare_from_a_run_file_writes_sequences_and_samples(ring_csv, tmp_path):
    conf = tmp_path / "run.yaml"
    conf.write_text(f"data: {{path: {ring_csv}}}\nsplit: {{name: last_n, n: 2}}\noutput: {{folder: {tmp_path / 'out'}}}\nsamples: {{negatives: 3}}\n")
    result = invoke("prepare", "--conf", conf)
    assert result.output.splitlines()[-1].startswith(f"{tmp_path / 'out' / 'sequences'}: 900 events of 60 users")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sequences"]
    result = invoke("-q", "prepare", "--conf", conf, tmp_path / "elsewhere", "--samples", tmp_path / "samples", "samples.item=thing")
    names = ["item.parquet", "samples.json", "test.parquet", "train.parquet", "validation.parquet"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == names
    train = pl.read_parquet(tmp_path / "samples" / "train.parquet")
    assert f"train.parquet: {len(train):,} rows" in result.output
    assert train.columns == ["label", "user_id", "thing_id", "recent_thing_ids", "last_thing"]
    assert (tmp_path / "elsewhere" / "sequences.json").exists()
    assert len(train) == train["label"].cast(int).sum() + 3 * 60 * 12 * 0  # every user has taken all 12 items in training: no negatives are left


def test_prepare_says_what_is_missing(ring_csv, tmp_path):
    conf = tmp_path / "run.yaml"
    conf.write_text(f"data: {{path: {ring_csv}}}\n")
    for arguments, message in (
        (["--conf", conf], "expected a folder for the sequences"),
        (["--conf", conf, "a", "b"], "expected one folder beside --conf, for the sequences. Got a, b"),
        ([ring_csv], "expected a log and a folder, or --conf FILE"),
        (["--conf", conf, "out", "sampels.negatives=3"], "sampels: unknown setting. Did you mean 'samples'"),
        (["--conf", conf, "out", "data.path=null"], "data: expected either data.name"),
    ):
        with pytest.raises(SeqrecError, match=message):
            invoke("prepare", *arguments)
    invoke("-q", "prepare", "--conf", conf, "--samples", tmp_path / "only")
    assert (tmp_path / "only" / "samples.json").exists()


def test_five_lines_of_the_readme(ring_csv, tmp_path, monkeypatch):
    """The README's Python example, as it stands there, on a log of this shape."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    monkeypatch.chdir(tmp_path)
    os.rename(ring_csv, tmp_path / "events.csv")
    names: dict = {}
    exec(code, names)
    assert len(names["items"]) == 10
