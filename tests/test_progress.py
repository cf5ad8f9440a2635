"""What a log says of work that goes on: plain lines, at most one every ten seconds, and one at the end."""

import pytest

from diffplan.runs import Progress, progress


class Clock:
    """A stand-in for the time module, moved by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_progress_in_a_log_is_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress("prior", total=100, done=40) as shown:
        for _ in range(6):
            clock.now += 4.0
            shown.advance(10, loss=0.12345)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "prior: 70/100  loss 0.1235  2.5 steps/s  12 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  0 s left",
        "prior: 100/100  loss 0.1235  2.5 steps/s  done in 24.0 s",
    ]
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_progress_says_nothing_if_nothing_was_left_to_do_or_it_failed(capsys):
    with Progress("prior", total=10, done=10):
        pass
    with pytest.raises(ZeroDivisionError), Progress("prior", total=10) as shown:
        shown.advance(1)
        raise ZeroDivisionError
    assert capsys.readouterr().out == ""
