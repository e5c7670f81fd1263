from __future__ import annotations

from typing import get_type_hints

import pytest

from seqrec.errors import SeqrecError, SettingsError
from seqrec.models.hrm import HRM
from seqrec.models.markov import Markov
from seqrec.training.options import FitChanges, FitOptions, FitReport


def test_the_keywords_of_fit_are_the_fields_of_its_options():
    fields = FitOptions.model_fields
    assert get_type_hints(FitChanges).keys() == fields.keys()
    assert all(field.description for field in fields.values())


def test_keywords_replace_what_the_options_say(ring):
    on = FitOptions(seed=1, progress=False)
    model = HRM(width=4, train={"epochs": 2})
    assert model.fit(ring, on).fit_report.seed == 1
    assert model.fit(ring, on, seed=2, stop_after=1).fit_report.epochs == 1
    assert model.fit_report.seed == 2
    assert on.seed == 1


def test_options_for_one_model_do_for_any(ring):
    report = HRM(width=4, train={"epochs": 2}).fit(ring, progress=False).fit_report
    on = FitOptions(stop_after=report.best_epoch, schedule_epochs=report.schedule_epochs, progress=False)
    simple = Markov().fit(ring, on).fit_report
    assert simple.best_epoch is None
    again = FitOptions(stop_after=simple.best_epoch, schedule_epochs=simple.schedule_epochs, progress=False)
    assert HRM(width=4, train={"epochs": 2}).fit(ring, again).fit_report.epochs == 2


def test_a_value_out_of_range_is_refused(ring):
    with pytest.raises(SettingsError, match=r"fit\.seed: expected greater than or equal to 0\. Got -1\."):
        Markov().fit(ring, seed=-1)
    with pytest.raises(SettingsError, match=r"fit\.precision: expected"):
        Markov().fit(ring, precision="float16")


def test_a_model_that_is_not_trained_has_no_report():
    with pytest.raises(SeqrecError, match=r"markov is not trained\. Call fit"):
        _ = Markov().fit_report


def test_an_epoch_that_was_cut_short_does_not_count_as_one():
    curve = tuple({"epoch": n + 1, "positions": p} for n, p in enumerate([100, 100, 20]))
    assert FitReport(1.0, best_epoch=3, curve=curve).whole_epochs == 2
    assert FitReport(1.0, best_epoch=2, curve=curve).whole_epochs == 2
    assert FitReport(1.0, best_epoch=3, curve=(*curve[:2], {"epoch": 3, "positions": 80})).whole_epochs == 3
    assert FitReport(1.0, best_epoch=1, curve=({"epoch": 1, "positions": 7},)).whole_epochs == 1
    assert FitReport(1.0, best_epoch=0, curve=curve).whole_epochs == 0  # the start was the best
    assert FitReport(1.0, best_epoch=3, curve=({"epoch": 1}, {"epoch": 2}, {"epoch": 3})).whole_epochs == 3
