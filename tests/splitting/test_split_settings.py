"""Splits by name, in YAML and in Python."""

from __future__ import annotations

import datetime
import importlib

import pytest
from random_sequences import of_items

from seqrec.errors import DataError, SettingsError
from seqrec.settings.base import Settings
from seqrec.splitting import SPLITS, SplitSettings, global_temporal, last_n, leave_one_out, user_holdout


class Run(Settings):
    """A run with a split among its sections."""

    split: SplitSettings = SplitSettings()


def test_name_and_arguments_make_the_split():
    sequences = of_items("abcdef", "bcdefa")
    assert SplitSettings(name="last_n", n=2).apply(sequences).hash == last_n(sequences, n=2).hash
    assert SplitSettings().apply(sequences).hash == leave_one_out(sequences).hash
    assert Run.of({"split": {"name": "last_n", "n": 2}}, "").split.apply(sequences).settings == {
        "name": "last_n",
        "n": 2,
        "min_rating": None,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"name": "last_n", "nn": 3},
            r"split.nn: expected an argument of last_n \(did you mean 'n'\?\). Got 3.",
        ),
        ({"name": "leave_one_out", "n": 3}, r"split.n: expected an argument of leave_one_out"),
        ({"name": "last_m"}, r"split.name: unknown split 'last_m'\. Did you mean 'last_n'\?"),
        ({"nmae": "last_n"}, r"split.nmae: .*did you mean 'name'"),
        ({"name": "last_n", "n": 0}, r"split.n: expected greater than or equal to 1. Got 0."),
        (
            {"name": "global_temporal", "targets": "lsat"},
            r"split.targets: expected 'last', 'successive', 'all', 'next_basket' or 'baskets'. Got 'lsat'.",
        ),
        ({"name": "global_temporal", "test_cut": -1}, r"split.test_cut: expected a quantile .* Got -1."),
        (
            {"name": "global_temporal", "test_cut": "soon"},
            r"split.test_cut: expected .*date such as .* Got 'soon'.",
        ),
        ({"name": "user_holdout", "test_users": 0}, r"split.test_users: expected greater than 0. Got 0."),
        ({"name": "session_temporal", "test_days": "x"}, r"split.test_days: expected a valid number"),
    ],
)
def test_wrong_settings_are_refused_before_any_data(wrong, message):
    for read in (lambda: SplitSettings.of(wrong, "split"), lambda: Run.of({"split": wrong}, "")):
        with pytest.raises(SettingsError, match=message):
            read()


def test_direct_calls_check_their_arguments_too():
    with pytest.raises(SettingsError, match=r"last_n.n: expected greater than or equal to 1. Got 0."):
        last_n(of_items("abc"), n=0)
    with pytest.raises(SettingsError, match=r"user_holdout.test_users"):
        user_holdout(of_items("abc"), test_users=-1)
    with pytest.raises(TypeError, match="nn"):
        last_n(of_items("abc"), nn=3)


@pytest.mark.parametrize(
    "date",
    ["2003-02-01", datetime.date(2003, 2, 1), datetime.datetime(2003, 2, 1), "2003-02-01T00:00:00+00:00"],
)
def test_dates_are_cuts(date):
    moment = int(datetime.datetime(2003, 2, 1, tzinfo=datetime.UTC).timestamp())
    sequences = of_items(
        "abcd",
        "abcd",
        times=[
            [moment - 3, moment - 2, moment - 1, moment],
            [moment - 3, moment - 2, moment - 1, moment - 1],
        ],
    )
    split = global_temporal(sequences, validation_cut=moment - 1, test_cut=date)
    assert split.test.targets.tolist() == [3]
    assert split.settings["test_cut"] == "2003-02-01T00:00:00+00:00"
    assert (
        SplitSettings(name="global_temporal", validation_cut=moment - 1, test_cut=date).apply(sequences).hash
        == split.hash
    )


def test_every_split_draws_its_time_axis_with_open_and_closed_ends():
    for name in SPLITS:
        drawing = importlib.import_module(f"seqrec.splitting.{name}").__doc__
        assert all(mark in drawing for mark in ("e1 ", "|", "train [", "test"))


def test_a_split_with_no_query_is_refused_and_says_why():
    for settings in (SplitSettings(name="last_n", n=50), SplitSettings()):
        sequences = of_items("abcdefgh", "abc") if settings.arguments else of_items("ab", "ba")
        with pytest.raises(
            DataError,
            match=rf"split '{settings.name}': expected at least one validation query. "
            "Got none.*the longest of 2 sequences has",
        ):
            settings.apply(sequences)


def test_a_split_with_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match=r"expected at least one training target\. Got none"):
        SplitSettings(name="last_n", n=1).apply(of_items("abc", "abc"))
