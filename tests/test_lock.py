"""The lock of a run: live processes are respected, wherever they are; what the dead have left is taken over."""

import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from diffplan.runs import RunError, lock
from diffplan.runs.lock import FILE, locked


def left(run: Path, age: float = 0.0, **about) -> Path:
    """A lock that another process has left, `age` seconds ago."""
    run.mkdir(exist_ok=True)
    path = run / FILE
    holder = {"pid": os.getppid(), "started": lock._started(os.getppid()), **lock._where(), "token": "another"} | about
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def refused(run: Path, words: str) -> None:
    before = (run / FILE).read_bytes() if (run / FILE).is_file() else None
    with pytest.raises(RunError, match=words) as error, locked(run):
        pass
    assert "\n" not in str(error.value)
    assert before is None or (run / FILE).read_bytes() == before
    assert [path.name for path in run.iterdir()] == [FILE]


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(tmp_path):
    with locked(tmp_path / "run") as outer:
        holder = json.loads((tmp_path / "run" / FILE).read_text())
        assert holder["pid"] == os.getpid() and holder["host"] == socket.gethostname()
        with locked(tmp_path / "run") as inner:
            assert inner is outer
        outer.check()
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run"):
        raise ZeroDivisionError
    assert list((tmp_path / "run").iterdir()) == []


def test_a_live_process_of_this_host_is_respected_however_old_its_lock_is(tmp_path):
    left(tmp_path / "run", age=1e6)
    refused(tmp_path / "run", f"run: in use by process {os.getppid()} on {socket.gethostname()}; wait until it ends")


def test_a_dead_process_of_this_host_is_not(tmp_path):
    left(tmp_path / "run", pid=dead())
    with locked(tmp_path / "run") as own:
        assert own.mine()


def test_a_process_whose_number_is_used_again_is_not(tmp_path):
    left(tmp_path / "run", started="1")
    with locked(tmp_path / "run") as own:
        assert own.mine()


def test_a_process_that_was_killed_and_not_waited_for_is_not(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    left(tmp_path / "run", pid=process.pid, started=lock._started(process.pid))
    refused(tmp_path / "run", f"in use by process {process.pid}")
    process.kill()
    while lock._started(process.pid) is not None:
        time.sleep(0.01)
    with locked(tmp_path / "run") as own:
        assert own.mine()
    process.wait()


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_a_process_elsewhere_is_respected_while_its_heart_beats(tmp_path, elsewhere):
    """Its number says nothing here: neither that it lives, nor that it is dead."""
    for number in (dead(), os.getppid()):
        left(tmp_path / "run", age=lock.STALE - 60, pid=number, **elsewhere)
        refused(tmp_path / "run", f"in use by process {number} on ")
        left(tmp_path / "run", age=lock.STALE + 60, pid=number, **elsewhere)
        with locked(tmp_path / "run") as own:
            assert own.mine()


def test_a_clock_that_runs_ahead_makes_no_lock_stale(tmp_path):
    left(tmp_path / "run", age=-1e5, host="elsewhere")
    refused(tmp_path / "run", r"if that process is gone, remove lock.json")


def test_a_held_lock_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with locked(tmp_path) as own:
        os.utime(own.path, (0, 0))
        until(lambda: own.path.stat().st_mtime > 0)
        left(tmp_path, age=1e6)  # another's now: its heart is not ours to beat
        time.sleep(0.1)
        assert time.time() - own.path.stat().st_mtime > 1e5


def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_users_file_or_folder_of_that_name_is_left_alone(tmp_path):
    run = tmp_path / "run"
    for content in ("{}", "mine", "[]"):
        left(run, age=60).write_text(content)
        os.utime(run / FILE, (0, 0))
        refused(run, r"lock.json: is no lock of a run; move it away")
    (run / FILE).unlink()
    (run / FILE).mkdir()
    refused(run, r"lock.json: is no lock of a run; move it away")
    assert (run / FILE).is_dir()


def test_a_lock_that_is_being_written_is_waited_for(tmp_path):
    path = left(tmp_path / "run")
    whole = path.read_text()
    path.write_text(whole[:10])
    thread = threading.Timer(0.3, path.write_text, (whole,))
    thread.start()
    with pytest.raises(RunError, match="in use by process"), locked(tmp_path / "run"):
        pass
    thread.join()


def test_a_renamed_run_is_no_longer_held(tmp_path):
    with locked(tmp_path / "run") as own:
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(
            RunError, match=r"run: was renamed, or its lock.json removed, during the run; nothing is written"
        ):
            own.check()
    assert not (tmp_path / "run").exists()
    with locked(tmp_path / "moved") as moved:  # its lock names this process, which has given it up
        assert moved.mine()


def test_two_names_of_one_directory_share_a_lock(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with locked(tmp_path / "run") as first, locked(tmp_path / "link") as second:
        assert first is second
    left(tmp_path / "run")
    refused(tmp_path / "link", "in use by process")


def test_an_empty_lock_is_what_a_kill_may_leave(tmp_path):
    """Between the making of the file and the writing of its content; nothing of a user's is lost with it."""
    path = left(tmp_path / "run")
    path.write_text("")
    os.utime(path, (0, 0))
    with locked(tmp_path / "run") as own:
        assert own.mine()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_fresh_lock_that_replaced_a_stale_one_stays(tmp_path):
    """Another process was quicker: it took the stale lock over between our look and our removal."""
    path = left(tmp_path, token="quicker")
    lock._remove_stale(path)
    assert json.loads(path.read_text())["token"] == "quicker" and [path.name for path in tmp_path.iterdir()] == [FILE]
    left(tmp_path, pid=dead())
    lock._remove_stale(path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_it_took_a_lock_over_is_in_nobodys_way(tmp_path):
    left(tmp_path, pid=dead())
    guard = tmp_path / f"{FILE}.stale"
    guard.touch()
    os.utime(guard, (0, 0))
    with locked(tmp_path) as own:
        assert own.mine()
    assert list(tmp_path.iterdir()) == []


def test_many_threads_and_processes_never_hold_one_lock_at_once(tmp_path):
    """Locks of their own (as in other processes) race for a stale one; at most one of them ever has it."""
    inside, worst, taken = [], [], []

    def compete() -> None:
        own = lock.Lock(tmp_path)
        try:
            own.acquire()
        except RunError:
            return
        inside.append(own)
        worst.append(sum(each.mine() for each in list(inside)))
        taken.append(own)

    for _ in range(20):
        left(tmp_path, pid=dead())
        threads = [threading.Thread(target=compete) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == 1 and max(worst) == 1
        taken.pop().release()
        inside.clear()
        assert list(tmp_path.iterdir()) == []
