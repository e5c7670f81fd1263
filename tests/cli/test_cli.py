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
    out = subprocess.run(
        [sys.executable, "-m", "seqrec", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == f"seqrec {__version__}"


def test_the_command_line_starts_without_torch():
    """Help is quick: heavy libraries are imported by the command that needs them."""
    program = "import sys, seqrec.cli; sys.exit('torch' in sys.modules or 'polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "data check",
        "data download",
        "prepare",
        "migrate",
        "train",
        "evaluate",
        "benchmark",
        "report",
        "recommend",
    ],
)
def test_every_command_has_help(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_a_mistake_is_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "seqrec",
        "train",
        "--data",
        str(tmp_path / "absent.csv"),
        "--model",
        "hrm",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "absent.csv" in run.stderr
    assert "Traceback" not in run.stderr


def test_csv_to_recommendations_in_one_command(ring_csv, tmp_path):
    result = invoke(
        "-q", "recommend", ring_csv, "--model", "markov", "-s", "i1,i2", "-k", 1, "--save", tmp_path / "model"
    )
    assert "i3" in result.output
    again = invoke(
        "-q",
        "recommend",
        tmp_path / "model",
        "-u",
        "u1",
        "-u",
        "u2",
        "-k",
        2,
        "--seen",
        "--write",
        tmp_path / "out.csv",
    )
    assert again.exit_code == 0
    assert pl.read_csv(tmp_path / "out.csv")["user_id"].to_list() == ["u1", "u1", "u2", "u2"]


def test_train_evaluate_and_top_k(ring_csv, tmp_path):
    out = tmp_path / "out"
    result = invoke(
        "-q",
        "train",
        "--data",
        ring_csv,
        "--model",
        "hrm",
        "-o",
        out,
        "model.width=8",
        "train.epochs=2",
        "split.name=leave_one_out",
    )
    assert "ndcg@10" in result.output
    result = invoke(
        "-q", "evaluate", out, "--write-topk", tmp_path / "top.parquet", "--write", tmp_path / "table.md"
    )
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
    conf.write_text(
        f"data: {{path: {ring_csv}}}\nsplit: {{name: last_n, n: 2}}\noutput: {{folder: "
        f"{tmp_path / 'out'}}}\nsamples: {{negatives: 3}}\n"
    )
    result = invoke("prepare", "--conf", conf)
    assert result.output.splitlines()[-1].startswith(
        f"{tmp_path / 'out' / 'sequences'}: 900 events of 60 users"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sequences"]
    result = invoke(
        "-q",
        "prepare",
        "--conf",
        conf,
        tmp_path / "elsewhere",
        "--samples",
        tmp_path / "samples",
        "samples.item=thing",
    )
    names = ["item.parquet", "samples.json", "test.parquet", "train.parquet", "validation.parquet"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == names
    train = pl.read_parquet(tmp_path / "samples" / "train.parquet")
    assert f"train.parquet: {len(train):,} rows" in result.output
    assert train.columns == ["label", "user_id", "thing_id", "recent_thing_ids", "last_thing"]
    assert (tmp_path / "elsewhere" / "sequences.json").exists()
    # every user has taken all 12 items in training: no negatives are left
    assert len(train) == train["label"].cast(int).sum() + 3 * 60 * 12 * 0


def test_prepare_says_what_is_missing(ring_csv, tmp_path):
    conf = tmp_path / "run.yaml"
    conf.write_text(f"data: {{path: {ring_csv}}}\n")
    for arguments, message in (
        (["--conf", conf], "expected a folder for the sequences"),
        (["--conf", conf, "a", "b"], "expected at most one folder with --conf, for the sequences. Got a, b"),
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
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    monkeypatch.chdir(tmp_path)
    os.rename(ring_csv, tmp_path / "events.csv")
    names: dict = {}
    exec(code, names)
    assert len(names["items"]) == 10


def refused(*arguments: object) -> str:
    """The one line of a mistake that a command refuses."""
    with pytest.raises(SeqrecError) as caught:
        invoke("-q", *arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "data.items=absent.csv",
        "data.min_user_count=3",
        "data.duplicates=drop",
        "data.tie_order=random",
        "data.format=csv",
        "data.encoding=utf-8",
    ],
)
def test_settings_that_a_prepared_folder_has_decided_are_refused(ring_csv, tmp_path, setting):
    invoke("-q", "prepare", ring_csv, tmp_path / "ring")
    message = refused("train", "--data", tmp_path / "ring", "--model", "popularity", setting)
    assert setting.split("=")[0] in message
    assert "prepared" in message


def test_columns_of_a_known_data_set_are_refused():
    message = refused("data", "check", "ml-100k", "--column", "user_id=client")
    assert "data.columns" in message
    assert "ml-100k" in message


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize(
    "option",
    [("--format", "jsonl"), ("--column", "user_id=client"), ("--delimiter", ";"), ("--encoding", "latin-1")],
    ids=" ".join,
)
def test_how_a_log_is_read_is_refused_beside_a_run_file(ring_csv, tmp_path, command, option):
    conf = tmp_path / "run.yaml"
    conf.write_text(
        f"data: {{path: {ring_csv}}}\nmodel: {{name: popularity}}\noutput: {{folder: {tmp_path / 'out'}}}\n"
    )
    message = refused(command, "--conf", conf, *option)
    assert "--conf" in message
    assert "data." in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [("--duplicates", "drop"), ("--min-item-count", "5"), ("--min-user-count", "5")], ids=" ".join
)
def test_what_is_left_out_of_a_log_is_refused_beside_a_run_file(ring_csv, tmp_path, option):
    conf = tmp_path / "run.yaml"
    conf.write_text(f"data: {{path: {ring_csv}}}\n")
    assert "--conf" in refused("prepare", "--conf", conf, tmp_path / "out", *option)


def test_a_mistyped_data_set_has_a_neighbour():
    assert "Did you mean 'ml-100k'" in refused("data", "check", "ml-100")


@pytest.mark.parametrize("option", ["--model", "--save", "--column", "--format"])
def test_what_only_a_log_has_use_for_is_refused_beside_a_model(ring_csv, tmp_path, option):
    invoke("-q", "recommend", ring_csv, "--model", "popularity", "-s", "i1", "--save", tmp_path / "model")
    value = {
        "--model": "markov",
        "--save": tmp_path / "copy",
        "--column": "user_id=client",
        "--format": "csv",
    }[option]
    assert "is a trained model" in refused("recommend", tmp_path / "model", "-s", "i1", option, value)
    assert not (tmp_path / "copy").exists()


def test_histories_and_users_at_once_are_refused(ring_csv):
    assert "--user" in refused("recommend", ring_csv, "--model", "popularity", "-s", "i1", "-u", "u1")


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "LOG", "--write", "out.xyz"],
        ["prepare", "LOG", "LOG"],
        ["prepare", "LOG", "RUN/sequences", "--samples", "LOG"],
        ["train", "--data", "LOG", "--model", "popularity", "-o", "LOG"],
        ["train", "--data", "LOG", "--model", "popularity", "evaluate.topk=lists.txt"],
        ["recommend", "LOG", "--model", "popularity", "--write", "LOG/out.csv"],
        ["recommend", "LOG", "--model", "popularity", "--save", "LOG"],
        ["evaluate", "RUN", "--write-topk", "lists.txt"],
        ["benchmark", "ml-100k-leave-one-out-v1", "--leaderboard", "board.txt"],
        ["benchmark", "ml-100k-leave-one-out-v1", "--report", "page.md"],
        ["benchmark", "ml-100k-leave-one-out-v1", "--results", "LOG"],
        ["report", "RUN", "-o", "page.pdf"],
    ],
    ids=lambda command: " ".join(command[:2]) + " " + command[-2],
)
def test_outputs_are_checked_before_the_work(ring_csv, tmp_path, monkeypatch, command):
    from seqrec.models.popularity import Popularity
    from seqrec.sources import preparing

    monkeypatch.setattr(preparing, "prepare", lambda *_, **__: pytest.fail("the work was begun"))
    monkeypatch.setattr(Popularity, "fit", lambda *_, **__: pytest.fail("the work was begun"))
    arguments = [part.replace("LOG", str(ring_csv)).replace("RUN", str(tmp_path)) for part in command]
    assert "expected a f" in refused(*arguments)  # a file, or a folder


def test_an_error_of_the_file_system_is_one_line(ring_csv, tmp_path):
    """A folder where a file is wanted, met only by the command itself."""
    command = [
        sys.executable,
        "-m",
        "seqrec",
        "-q",
        "recommend",
        str(ring_csv),
        "--model",
        "popularity",
        "-s",
        "i1",
        "--write",
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert "Traceback" not in run.stderr


def test_any_error_of_the_system_is_one_line(tmp_path):
    program = (
        "import errno, sys, seqrec.cli as cli, seqrec.migrate as m\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device', 'there')\n"
        "m.read = full; sys.argv = ['seqrec', 'migrate', 'x.yaml']; cli.main()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: there: No space left on device. Check the path")


def test_columns_by_number_and_left_out(tmp_path):
    log = tmp_path / "bare.txt"
    log.write_text("\n".join(f"u{u};i{(u + t) % 9};x" for u in range(9) for t in range(6)) + "\n", "latin-1")
    options = ["--format", "csv", "--delimiter", ";", "--encoding", "latin-1"]
    for which in ("user_id=0", "item_id=1", "timestamp="):
        options += ["--column", which]
    assert "9" in invoke("-q", "data", "check", log, *options).output
    assert "i2" in invoke("-q", "recommend", log, *options, "--model", "markov", "-s", "i1", "-k", 1).output


def test_what_a_message_advises_can_be_said(tmp_path):
    """For a file without a header, and for an item table under other names or in another encoding."""
    log, items = tmp_path / "bare.csv", tmp_path / "items.csv"
    log.write_text("\n".join(f"u{u},i{(u + t) % 9},{t}" for u in range(9) for t in range(6)) + "\n")
    assert "--column user_id=0" in refused("data", "check", log)
    columns = ["data.columns.user_id=0", "data.columns.item_id=1", "data.columns.timestamp=2"]
    train = ["train", "--data", log, "--model", "popularity", f"data.items={items}", *columns]
    items.write_text("sku,title\ni1,one\n")
    assert "Rename its column of ids to item_id" in refused(*train)
    items.write_bytes("item_id,title\ni1,né\n".encode("latin-1"))
    assert "UTF-8" in refused(*train)
    log.write_bytes(b"user_id,item_id\nu1,caf\xe9\n")
    assert "--encoding latin-1" in refused("data", "check", log)
    odd = tmp_path / "odd.txt"
    odd.write_text("a b c\nd e f g\na x\n")
    message = refused("data", "check", odd)
    assert "--format csv" in message
    assert "--column user_id=0 --column item_id=1" in message


def test_a_strange_digit_is_an_unknown_item(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        "user_id,item_id,timestamp\n"
        + "".join(f"{u},{(u + t) % 5},{t}\n" for u in range(5) for t in range(4))
    )
    assert "²" in refused("recommend", log, "--model", "popularity", "-s", "²")


def test_a_warning_is_a_plain_line(ring_csv):
    command = [
        sys.executable,
        "-m",
        "seqrec",
        "-q",
        "recommend",
        str(ring_csv),
        "--model",
        "popularity",
        "-s",
        "i1,nothing",
        "--on-unknown",
        "warn",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0
    assert "nothing" in run.stderr
    assert "UserWarning" not in run.stderr
    assert ".py" not in run.stderr


def test_a_run_is_evaluated_from_elsewhere(ring_csv, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    Path("log.csv").write_bytes(Path(ring_csv).read_bytes())
    trained = invoke("-q", "train", "--data", "log.csv", "--model", "markov", "-o", "run").output
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert invoke("-q", "evaluate", "../there/run").output == trained
    (tmp_path / "there" / "log.csv").rename(tmp_path / "moved.csv")
    assert invoke("-q", "evaluate", "../there/run", "--data", "../moved.csv").output == trained


def test_another_run_in_the_same_folder(ring_csv, tmp_path):
    """The same again is the same; another is refused, and replaces what is there only if asked to."""
    out = tmp_path / "out"
    run = [
        "train",
        "--data",
        ring_csv,
        "--model",
        "hrm",
        "-o",
        out,
        "model.width=8",
        "evaluate.filter_seen=false",
    ]
    first = invoke("-q", *run, "train.epochs=1").output
    assert invoke("-q", *run, "train.epochs=1").output == first
    assert "--restart" in refused(*run, "train.epochs=2")
    assert "--restart" in refused("train", "--data", ring_csv, "--model", "popularity", "-o", out)
    invoke("-q", *run, "train.epochs=2", "--restart")
    assert "--restart" in refused(*run, "train.epochs=1")


FAULT = """
import sys
from seqrec import cli, experiment
from seqrec.experiment import train
def broken(*_, **__): raise RuntimeError("s3://user:s3cr3t@host/x is\\nbroken")
train.train = broken
cli.main()
"""


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_of_ours_is_one_line_and_says_where_its_traceback_is(ring_csv, tmp_path, debug):
    options = ["--debug"] if debug else []
    done = subprocess.run(
        [sys.executable, "-c", FAULT, *options, "train", "--data", str(ring_csv), "--model", "popularity"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "s3cr3t" not in done.stderr
    assert ("Traceback" in done.stderr) == debug
    kept = list(tmp_path.glob("seqrec-traceback-*.txt"))
    if debug:
        assert not kept
    else:
        (line,) = done.stderr.strip().splitlines()
        assert "RuntimeError: s3://***@host/x is broken" in line
        assert str(kept[0]) in line
        text = kept[0].read_text()
        assert "in broken" in text
        assert "s3cr3t" not in text
