"""What is shown of a training: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import io
import re
import sys

import pytest

from seqrec.training import progress
from seqrec.training.progress import TrainingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Where errors go, from now on (what a fixture sets, pytest sets back before the test)."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return screen


def test_a_bar_on_a_terminal_which_ends_with_the_training(monkeypatch):
    screen = terminal(monkeypatch)
    with TrainingProgress("small model", 100) as shown:
        shown.update(50, 3, 0.25)
        shown.line("a line that stays")
        shown.update(100, 4, 0.125)
    text = screen.getvalue()
    assert "small model" in text
    assert re.search(r"[1-9][\d,]* positions/s +epoch 4 loss 0\.1250", text)
    assert "a line that stays" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    shown.bar.refresh()
    assert screen.getvalue() == text  # nobody draws any more


def test_lines_elsewhere_count_what_this_run_has_done(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with caplog.at_level("INFO", logger="seqrec"), TrainingProgress("small model", 1000) as shown:
        shown.resume(400)
        now = 10.0
        shown.update(500, 2, 0.5)
        assert not caplog.messages  # not that soon
        now = 100.0
        shown.update(600, 3, 0.25)
        shown.update(601, 3, 0.25)
    assert caplog.messages == [
        "small model epoch 3: 60%, loss 0.2500, 2 positions/s, at most 200 s left",
    ]


def test_nothing_where_nothing_is_asked_for(monkeypatch, caplog):
    screen = terminal(monkeypatch)
    with caplog.at_level("INFO", logger="seqrec"), TrainingProgress("small model", 100, False) as shown:
        shown.update(50, 3, 0.25)
        shown.line("a line")
    assert screen.getvalue() == ""
    assert not caplog.messages
