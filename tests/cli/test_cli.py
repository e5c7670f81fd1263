from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner
from warm_seqrec import warm_seqrec

import seqrec
from seqrec import __version__
from seqrec.cli import app
from seqrec.data.interactions import Interactions
from seqrec.errors import SeqrecError, SettingsError
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov


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
        "similar",
        "index",
        "export",
        "settings",
        "compare",
    ],
)
def test_every_command_has_help(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_alone_it_shows_where_to_begin():
    result = invoke()
    assert result.exit_code == 0
    assert "seqrec choose LOG" in result.output
    assert len(result.output.splitlines()) < 12


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


def test_users_with_what_they_did_since(ring_csv, tmp_path):
    model = tmp_path / "model"
    invoke("-q", "recommend", ring_csv, "--model", "markov", "-s", "i1", "--save", model)
    out = invoke("-q", "recommend", model, "-u", "u1", "-s", "i4,i5", "-k", 1, "--seen").output
    assert "u1" in out
    assert "i6" in out
    message = refused("recommend", model, "-u", "u1", "-u", "u2", "-s", "i1")
    assert "expected one for each --user" in message


def test_a_file_of_histories(films, tmp_path):
    source, target = tmp_path / "h.csv", tmp_path / "o.csv"
    pl.DataFrame({"who": ["a", "a", "b"], "item": [1, 2, 77]}).write_csv(source)
    options = ("--column", "user_id=who", "--where", "genres = Crime", "--seen")
    invoke("-q", "recommend", films, "--input", source, "--output", target, "-k", 2, *options)
    found = pl.read_csv(target)
    assert found["user_id"].to_list() == ["a", "a", "b", "b"]
    assert set(found["item_id"]) == {1, 2}
    assert found["source"].to_list() == ["model"] * 2 + ["popularity"] * 2
    files = ("--input", source, "--output", target)
    for arguments, said in (
        (("--input", source), "--output: expected the file to write"),
        (("--output", target), "--output: cannot be given without --input"),
        (("--since",), "--since: cannot be given without --input"),
        ((*files, "-s", "1"), "--sequence: cannot be given beside --input"),
        ((*files, "--write", "x.csv"), "--write: cannot be given beside --input"),
        (("--input", "histories", "--output", target), "expected a file whose name ends in"),
        (("--input", source, "--output", "recs.txt"), "expected a file that ends in"),
        ((*files, "--rows", "lists"), "CSV has no lists"),
        ((*files, "--on-unknown", "raise", *options), "row 3: the model does not know the item '77'"),
        (files, "Map one|expected a column of the users"),
    ):
        assert re.search(said, refused("recommend", films, *arguments)), arguments


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A model of films with titles and genres, as a folder."""
    items = pl.DataFrame(
        {
            "item_id": [1, 2, 3, 4, 5],
            "title": ["Heat (1995)", "Usual Suspects, The (1995)", "Heat (1986)", "Alien", "Alien"],
            "genres": ["Action|Crime", "Crime", "Action", "Horror|Sci-Fi", None],
            "year": [1995, 1995, 1986, 1979, 2000],
        }
    )
    rng = np.random.default_rng(0)
    log = pl.DataFrame({"user_id": np.repeat(np.arange(20), 4), "item_id": rng.integers(1, 6, 80)})
    log = pl.concat([log, pl.DataFrame({"user_id": [99] * 5, "item_id": [1, 2, 3, 4, 5]})])
    folder = tmp_path_factory.mktemp("films") / "model"
    Markov().fit(Interactions.from_frame(log, items=items)).save(folder)
    return folder


def test_why_an_item_is_recommended(films, tmp_path):
    log = pl.DataFrame({"user_id": np.repeat(np.arange(20), 4), "item_id": np.arange(80) % 5 + 1})
    titles = pl.DataFrame({"item_id": [1, 2, 3, 4, 5], "title": ["Heat", "Ran", None, "Alien", "M"]})
    model = HRM(width=4, train={"epochs": 1}).fit(Interactions.from_frame(log, items=titles), progress=False)
    model.save(tmp_path / "model")
    out = tmp_path / "out.json"
    invoke("-q", "recommend", tmp_path / "model", "-s", "3,4", "-k", 2, "--explain", "--write", out)
    rows = json.loads(out.read_text())["rows"]
    assert {tuple(sorted(row["because"].split("; "))) for row in rows} == {("3", "Alien")}
    assert "has no item vectors" in refused("recommend", films, "-s", "1", "--explain")
    assert "--input" in refused("recommend", films, "--input", "a.csv", "--output", "b.csv", "--explain")


def ids_of(*arguments, folder, out):
    invoke("-q", "recommend", folder, *arguments, "-k", 5, "--write", out)
    return pl.read_csv(out)["item_id"].to_list()


def test_what_is_allowed_is_a_file_or_what_attributes_say(films, tmp_path):
    def ids(*more):
        return sorted(ids_of("-s", "5", *more, folder=films, out=tmp_path / "out.csv"))

    (tmp_path / "some.txt").write_text("1\n\n2\n4\n")
    pl.DataFrame({"movieId": [2, 3]}).write_csv(tmp_path / "ids.csv")
    pl.DataFrame({"item_id": ["4", "1"], "why": [0, 0]}).write_parquet(tmp_path / "ids.parquet")
    assert ids("--allow", tmp_path / "some.txt") == [1, 2, 4]
    assert ids("--allow", tmp_path / "some.txt", "--deny", tmp_path / "ids.csv") == [1, 4]
    assert ids("--deny", tmp_path / "ids.parquet") == [2, 3]
    assert ids("--where", "genres = Crime") == [1, 2]
    assert ids("--where", "genres = 'Action' and year < 1990") == [3]
    assert ids("--where", "genres != Action") == [2, 4]
    assert ids("--where", "genres in Horror, Action", "--allow", tmp_path / "some.txt") == [1, 4]
    (tmp_path / "none.txt").write_text("\n")
    for arguments, said in (
        (("--where", "genre = Crime"), "Did you mean 'genres'"),
        (("--where", "genres = Comdey"), "Values of genres are 'Action', 'Crime'"),
        (("--where", "genres"), "expected a column, an operator"),
        (("--allow", tmp_path / "absent.txt"), "no such file"),
        (("--allow", tmp_path / "none.txt"), "expected item ids, one a line"),
    ):
        assert said in refused("recommend", films, "-s", "1", *arguments), arguments
    (tmp_path / "unknown.txt").write_text("1\n77\n")
    assert "77" in refused("recommend", films, "-s", "5", "--deny", tmp_path / "unknown.txt")


def test_items_may_be_named_by_their_titles(films, tmp_path):
    def same(title, number, *more):
        asked = {"folder": films, "out": tmp_path / "out.csv"}
        assert ids_of("-s", title, *more, **asked) == ids_of("-s", number, **asked)

    same("heat (1995)", "1")
    same('"Usual Suspects, The (1995)",3', "2,3")
    same("nothing like that,3", "3", "--on-unknown", "ignore")
    assert "4, 5" in refused("recommend", films, "-s", "Alien")
    assert "'Heat (1995)' (id 1) or 'Heat (1986)' (id 3)" in refused("recommend", films, "-s", "Heat")
    assert "'Heat (1995)' (id 1)" in refused("recommend", films, "-s", "Haet (1995)")


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
    first = invoke("-q", *run, "train.epochs=1").stdout  # stderr has the time of its warnings
    assert invoke("-q", *run, "train.epochs=1").stdout == first
    assert "--restart" in refused(*run, "train.epochs=1", "train.learning_rate=0.1")
    assert "--restart" in refused("train", "--data", ring_csv, "--model", "popularity", "-o", out)
    invoke("-q", *run, "train.epochs=2", "--restart")
    assert "--restart" in refused(*run, "train.epochs=1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "LOG", "--model", "markov", "--model", "fpmc"],
        ["train", "--data", "LOG", "-o", "a", "--output", "b"],
        ["recommend", "LOG", "-k", 3, "-k", 4],
        ["report", "-o", "a.html", "-o", "b.html"],
        ["data", "check", "LOG", "--write", "a.csv", "--write", "b.csv"],
    ],
)
def test_an_option_given_twice_is_refused(ring_csv, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SeqrecError, match="expected once"):
        invoke(*[ring_csv if a == "LOG" else a for a in arguments])
    assert not list(tmp_path.glob("?.*"))


def halves(ring_csv, tmp_path):
    lines = ring_csv.read_text().splitlines(keepends=True)
    half = len(lines) // 2
    (tmp_path / "1.csv").write_text("".join(lines[:half]))
    (tmp_path / "2.csv").write_text("".join([lines[0], *lines[half:]]))
    return tmp_path / "1.csv", tmp_path / "2.csv"


def test_a_log_of_several_files(ring_csv, tmp_path):
    """Both files count, wherever a log can be named."""
    one, two = halves(ring_csv, tmp_path)
    invoke("-q", "train", "--data", ring_csv, "--model", "markov", "-o", tmp_path / "whole")
    invoke("-q", "train", "--data", one, "--data", two, "--model", "markov", "-o", tmp_path / "parts")
    metrics = [(tmp_path / name / "metrics.json").read_text() for name in ("whole", "parts")]
    assert metrics[0] == metrics[1]
    events = len(ring_csv.read_text().splitlines()) - 1
    assert f"{events:,}" in invoke("data", "check", one, two).output
    assert f"{events:,} events" in invoke("prepare", one, two, tmp_path / "prepared").output
    with pytest.raises(SeqrecError, match="no such file"):
        invoke("train", "--data", one, "--data", "ml-100k")


def test_negatives_beside_a_loss_that_has_none(ring_csv, tmp_path, caplog):
    data = ["--data", ring_csv, "--model", "gru4rec", "train.epochs=1"]
    with pytest.raises(SeqrecError, match="negatives: the loss softmax compares"):
        invoke("train", *data, "loss=softmax", "negatives.count=3")
    run = tmp_path / "run.yaml"
    run.write_text(
        f"data: {{path: {ring_csv}}}\nmodel: {{name: gru4rec, width: 8}}\nloss: bpr\n"
        "negatives: {count: 4}\ntrain: {epochs: 1}\n"
    )
    invoke("train", "--conf", run, "loss=softmax", "-o", tmp_path / "run")
    assert "negatives: unused, since the loss softmax" in caplog.text
    with pytest.raises(SeqrecError, match="negatives: the loss softmax compares"):
        invoke("train", "--conf", run, "loss=softmax", "negatives.count=5")


def test_recommend_follows_the_runs_filter(ring_csv, tmp_path):
    run = tmp_path / "run"
    invoke(
        "-q", "train", "--data", ring_csv, "--model", "popularity", "-o", run, "evaluate.filter_seen=false"
    )
    for folder in (run, run / "model"):
        seen, unseen = (
            invoke("-q", "recommend", folder, "-s", "i1", "-k", 12, *more).output.splitlines()
            for more in ([], ["--unseen"])
        )
        assert len(seen) == len(unseen) + 1  # i1 itself


def test_a_model_that_is_not_kept_is_announced(ring_csv, tmp_path, caplog):
    invoke("-q", "train", "--data", ring_csv, "--model", "markov")
    assert "thrown away" in caplog.text
    caplog.clear()
    invoke("-q", "train", "--data", ring_csv, "--model", "markov", "-o", tmp_path / "run")
    assert "thrown away" not in caplog.text


def test_ids_with_commas_and_quotes_can_be_asked_for(tmp_path):
    log = tmp_path / "log.csv"
    rows = [("u1", "5"), ("u1", "a,b"), ("u1", 'say "hi"'), ("u2", "5"), ("u2", "a,b")]
    pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_csv(log)
    for typed, expected in (("5", "a,b"), ('"a,b"', 'say "hi"'), ('5,"a,b"', 'say "hi"')):
        out = invoke("-q", "recommend", log, "--model", "markov", "-k", 1, "-s", typed).output
        assert expected in out
    with pytest.raises(SeqrecError, match="stands in quotes"):
        invoke("recommend", log, "--model", "markov", "-s", '"a,b')


def test_load_takes_a_run_folder(ring_csv, tmp_path):
    run = tmp_path / "run"
    invoke("-q", "train", "--data", ring_csv, "--model", "markov", "-o", run)
    tested = seqrec.load(run)
    assert tested.provenance["split"]["name"] == "leave_one_out"
    invoke("-q", "train", "--data", ring_csv, "--model", "markov", "-o", run, "--refit")
    assert seqrec.load(run).provenance["split"]["name"] == "refit"


@pytest.mark.parametrize(
    "command",
    [
        "train --data absent.csv",
        "train --data LOG --model gru4recc",
        "train --data LOG --model gru4rec model.widht=3",
        "train --data LOG train.epoch=3",
        "train --data LOG train.epochs=-3",
        "train --data LOG loss=bprr",
        "train --data LOG model.name=[gru4rec]",
        "train --data LOG loss.smothing=1",
        "train --data LOG negatives.cont=1",
        "train --data LOG split.name=last",
        "train --conf absent.yaml",
        "train protocol=nope --data LOG",
        "benchmark nope",
        "benchmark ml-100k-leave-one-out-v1 --models grurec",
        "recommend absent",
        "recommend LOG --model gruu",
        "evaluate absent",
        "evaluate lists.csv --protocol nope",
        "report absent",
        "migrate absent.yaml",
    ],
)
def test_a_mistake_is_answered_before_torch_is_imported(ring_csv, tmp_path, command):
    arguments = [str(ring_csv) if a == "LOG" else a for a in command.split()]
    program = (
        "import sys\nfrom seqrec.cli import main\nsys.argv = ['seqrec', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stdout.strip() == "False"


def test_the_k_core_in_yaml_and_on_the_command_line(tmp_path):
    """One pass over items and users leaves an item that is rare again."""
    log = tmp_path / "log.csv"
    rows = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "y"), ("c", "z"), ("d", "z")]
    pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_csv(log)
    counts = ["--min-item-count", 2, "--min-user-count", 2]
    assert "6 events" in invoke("prepare", log, tmp_path / "once", *counts).output
    assert "4 events" in invoke("prepare", log, tmp_path / "stable", *counts, "--until-stable").output
    run = tmp_path / "run.yaml"
    run.write_text(f"data: {{path: {log}, min_item_count: 2, min_user_count: 2, until_stable: true}}\n")
    assert "4 events" in invoke("prepare", tmp_path / "yaml", "--conf", run).output


def test_training_warns_of_ties_and_of_joined_files(tmp_path, caplog):
    rows = [(f"u{u}", f"i{(u + t) % 7}", 1_000_000_000 + t // 3) for u in range(30) for t in range(6)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_csv(tmp_path / "log.csv")
    invoke("-q", "train", "--data", tmp_path / "log.csv", "--model", "markov")
    assert "100% of the events share their second" in caplog.text
    assert "data.tie_order=random" in caplog.text
    caplog.clear()
    invoke("-q", "train", "--data", tmp_path / "log.csv", "--model", "markov", "data.tie_order=random")
    assert "share their second" not in caplog.text
    pl.concat([frame] * 3).write_csv(tmp_path / "thrice.csv")
    invoke("-q", "train", "--data", tmp_path / "thrice.csv", "--model", "markov")
    assert "Every event stands 3 times" in caplog.text


def test_more_epochs_than_a_finished_run_had(ring_csv, tmp_path, caplog):
    """It goes on where it was; with a falling rate it says what that means."""
    run = tmp_path / "run"
    command = ["train", "--data", ring_csv, "--model", "gru4rec", "model.width=8", "-o", run]
    invoke("-q", *command, "train.epochs=2", "train.patience=9")
    caplog.clear()
    invoke(*command, "train.epochs=4", "train.patience=9")
    assert "goes on from epoch 2 to 4" in caplog.text
    assert "of its peak" in caplog.text
    assert seqrec.load(run).fit_report.epochs == 4
    assert "epoch 3" in caplog.text
    assert "epoch 2:" not in caplog.text
    with pytest.raises(SeqrecError, match="another section train"):  # fewer: another run
        invoke("-q", *command, "train.epochs=3", "train.patience=9")
    with pytest.raises(SeqrecError, match="another section train"):
        invoke("-q", *command, "train.epochs=5", "train.patience=9", "train.learning_rate=0.1")


def test_more_epochs_than_followed_the_log(ring_csv, tmp_path, caplog):
    """run.json has what followed the log, and how the model stood beside the baselines."""
    run = tmp_path / "run"
    command = ["train", "--data", ring_csv, "--model", "hrm", "model.width=4", "-o", run]
    invoke("-q", *command)
    trained = json.loads((run / "run.json").read_text())["trained"]
    assert trained["plan"] == {"epochs": 44, "batch_positions": 32, "patience": 7, "learning_rate": 0.01}
    assert set(trained["validation"]) == {"metric", "filter_seen", "model", "popularity", "markov"}
    first = seqrec.load(run).fit_report
    invoke("-q", *command)
    assert seqrec.load(run).fit_report.train_seconds == first.train_seconds  # the same again
    caplog.clear()
    invoke(*command, "train.epochs=46")
    assert "goes on from epoch" in caplog.text or first.epochs < 44
    assert "ndcg@10" in invoke("evaluate", run).output


def test_from_an_earlier_model(ring_csv, tmp_path):
    """The settings are those of the earlier one, which need not be said again."""
    small = ["--model", "hrm", "model.width=4", "train.epochs=1", "-o", tmp_path / "first"]
    assert invoke("-q", "train", "--data", ring_csv, *small).exit_code == 0
    again = [*("-q", "train", "--data", ring_csv, "--from", tmp_path / "first"), "-o", tmp_path / "next"]
    assert invoke(*again, "train.epochs=1").exit_code == 0
    model = seqrec.load(tmp_path / "next")
    assert model.name == "hrm"
    assert model.settings.width == 4
    assert model.fit_report.start["items"] == {"kept": 12, "new": 0, "gone": 0}
    assert invoke(*again, "train.epochs=2").exit_code == 0  # more epochs
    with pytest.raises(SettingsError, match=r"fit\.start: markov is not trained by gradient"):
        invoke(*again[:-1], tmp_path / "third", "--model", "markov")
    with pytest.raises(seqrec.errors.DataError, match="nowhere: expected the folder of a trained model"):
        invoke("-q", "train", "--data", ring_csv, "--from", tmp_path / "nowhere")


@pytest.mark.parametrize("override", ["fit.device=cud", "loss=3", "loss.name=[bpr]", "loss=[bpr]"])
def test_what_only_torch_can_tell_is_refused_too(ring_csv, tmp_path, override):
    with pytest.raises(SettingsError, match=r"device|loss"):
        invoke("train", "--data", ring_csv, "--model", "gru4rec", override, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_run_is_refused_by_all_that_read_it(ring_csv, tmp_path):
    run, page = tmp_path / "run", tmp_path / "page.html"
    train = ["-q", "train", "--data", ring_csv, "--model", "markov", "-o", run]
    invoke(*train)
    commands = (
        train,
        ["evaluate", run],
        ["compare", run, run],
        ["report", run, "-o", page],
        ["recommend", run, "-s", "i1"],
        ["recommend", run / "model", "-s", "i1"],
    )
    for content, said in (("[1]", "expected a JSON object"), ('{"modle": {}}', "modle: unknown setting")):
        (run / "run.json").write_text(content)
        for command in commands:
            with pytest.raises(SeqrecError, match=rf"run\.json.*{said}"):
                invoke(*command)
    assert not page.exists()
    # one that lies beside a model that is saved by itself is another program's
    model = tmp_path / "other" / "mine"
    seqrec.load(run / "model").save(model)
    (tmp_path / "other" / "run.json").write_text("[1]")
    assert "i2" in invoke("-q", "recommend", model, "-s", "i1").output


def test_two_runs_are_compared_and_reported(ring_csv, tmp_path):
    again = ["evaluate.filter_seen=false"]  # everyone has seen all items
    for model in ("markov", "popularity"):
        invoke("-q", "train", "--data", ring_csv, "--model", model, "-o", tmp_path / "runs" / model, *again)
    a, b = tmp_path / "runs" / "popularity", tmp_path / "runs" / "markov"
    table = tmp_path / "table.json"
    out = invoke("compare", a, b, "--metric", "ndcg@10", "--write", table).output
    assert "popularity (popularity)" in out
    row = json.loads(table.read_text())["rows"][0]
    metrics = {r["metric"]: r["value"]["mean"] for r in json.loads((b / "metrics.json").read_text())["rows"]}
    assert row["B"]["mean"] == metrics["ndcg@10"]
    assert row["B - A"]["mean"] == pytest.approx(row["B"]["mean"] - row["A"]["mean"])
    assert row["p"] < 0.01
    same = invoke("compare", b, b).output
    assert "1.0000" in same
    page = tmp_path / "page.html"
    invoke("report", tmp_path / "runs", "-o", page)
    assert "markov (markov)" in page.read_text()
    invoke(
        "-q", "train", "--data", ring_csv, "--model", "markov", "-o", tmp_path / "other", "split.name=last_n"
    )
    with pytest.raises(SeqrecError, match="same test queries"):
        invoke("compare", a, tmp_path / "other")
    with pytest.raises(SeqrecError, match="results of one model"):
        invoke("compare", a, tmp_path / "runs")


def test_quiet_prints_results_and_warnings_alone(ring_csv, tmp_path):
    """On stdout the table; on stderr warnings, and no progress."""

    with warm_seqrec(tmp_path) as place:

        def run(*arguments):
            command = [f"{place}/seqrec", *map(str, arguments)]
            return subprocess.run(command, capture_output=True, text=True, check=True)

        train = ["train", "--data", ring_csv, "--model", "gru4rec", "train.epochs=1", "model.width=8"]
        loud, quiet = run(*train, "-o", tmp_path / "a"), run("-q", *train, "-o", tmp_path / "b")
        assert "epoch 1" in loud.stderr
        assert "epoch" not in quiet.stderr
        assert "events" not in quiet.stderr
        assert quiet.stdout == loud.stdout
        assert "thrown away" in run("-q", *train).stderr


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
    command = ["train", "--data", str(ring_csv), "--model", "popularity", "-o", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", FAULT, *options, *command],
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


def test_what_is_like_an_item_and_vectors(ring_csv, tmp_path):
    model, vectors = tmp_path / "model", tmp_path / "vectors.npz"
    invoke("-q", "recommend", ring_csv, "--model", "item_knn", "-s", "i1", "--save", model)
    similar = invoke("-q", "similar", model, "--item", "i1", "-k", 2, "--write", tmp_path / "near.csv")
    assert similar.exit_code == 0
    lines = (tmp_path / "near.csv").read_text().splitlines()
    assert lines[0] == "item_id,similar_id,score,rank"
    assert len(lines) == 3
    assert "does not know: ['x']" in refused("similar", model, "-i", "x")
    assert "item_knn has no item vectors" in refused("export", model, vectors, "--format", "vectors")
    assert "expected a neural model" in refused("export", model, tmp_path / "onnx")
    assert "--int8: goes with --format onnx" in refused(
        "export", model, vectors, "--format", "vectors", "--int8"
    )
    assert ".npz" in refused("export", model, tmp_path / "v.txt", "--format", "vectors")
    assert "expected the folder of a trained model" in refused(
        "export", tmp_path / "absent", tmp_path / "onnx"
    )
