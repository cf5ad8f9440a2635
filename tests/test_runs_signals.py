"""Processes that are killed, stopped, doubled or robbed of their directory: what they leave is whole, and goes on.

One server imports jax and forks a process for each job; a job sends itself its signals at a step that the test names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffplan.runs import signals
from diffplan.runs.lock import FILE

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("runs_worker.py")
SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}


class Server:
    """Forks jobs (`runs_worker.py`)."""

    def __init__(self) -> None:
        line = [sys.executable, "-W", "ignore", str(WORKER)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(line, cwd=ROOT, env=environment, **pipes)

    def ask(self, **what) -> dict:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Job:
    """A process on a run."""

    number = 0

    def __init__(self, server: Server, folder: Path, what: str = "train", run: str = "run", **options):
        Job.number += 1
        self.server, self.log = server, folder / f"log-{Job.number}"
        self.pid = server.ask(what=what, run=str(folder / run), log=str(self.log), **options)["pid"]

    def end(self) -> int:
        """Wait; returns the exit status."""
        return self.server.ask(what="wait", pid=self.pid)["code"]

    @property
    def text(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    with server.process:  # closes its pipes, which ends it, and waits
        pass
    assert server.process.returncode == 0


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory) -> dict[str, str]:
    """What an undisturbed process prints of its model and of its rows."""
    result = {}
    for what in ("train", "rows"):
        job = Job(server, tmp_path_factory.mktemp("whole"), what)
        assert job.end() == 0, job.text
        result[what] = job.text.splitlines()[-1]
    return result


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def error_of(job: Job) -> str:
    """The one line of an error."""
    lines = [line for line in job.text.splitlines() if "error: " in line]
    assert len(lines) == 1 and "Traceback" not in job.text, job.text
    return lines[0]


@pytest.mark.parametrize("moment", ["training", "saving", "finishing"])
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_training_that_was_ended_is_taken_up_bit_by_bit(server, whole, tmp_path, signal, moment):
    job = Job(server, tmp_path, signal=signal, moment=moment)
    assert job.end() == SIGNALS[signal], job.text
    steps = {path.name for path in (tmp_path / "run" / "prior" / "checkpoints").iterdir() if path.name.isdecimal()}
    if signal == "SIGKILL":
        assert steps == {"training": {"20"}, "saving": {"20"}, "finishing": {"20", "40"}}[moment]
    else:
        assert error_of(job) == "error: interrupted; run the same command again to go on from here"
        assert steps == {"training": {"20", "30"}, "saving": {"20", "40"}, "finishing": {"20", "40"}}[moment]
        assert not (tmp_path / "run" / FILE).exists()  # given up
    again = Job(server, tmp_path)
    assert again.end() == 0, again.text
    assert again.text.splitlines()[-1] == whole["train"]
    assert steps_of(tmp_path / "run" / "prior") == [10, 20, 30, 40]
    assert not list(tmp_path.rglob(".part-*")) and not (tmp_path / "run" / FILE).exists()


@pytest.mark.parametrize("signal", SIGNALS)
def test_rows_that_were_ended_are_made_again_and_those_that_were_whole_are_kept(server, whole, tmp_path, signal):
    job = Job(server, tmp_path, "rows", signal=signal)
    assert job.end() == SIGNALS[signal], job.text
    first = (tmp_path / "run" / "methods" / "0" / "rows.csv").stat().st_mtime_ns
    assert not (tmp_path / "run" / "methods" / "1" / "rows.csv").exists()
    again = Job(server, tmp_path, "rows")
    assert again.end() == 0, again.text
    assert again.text.splitlines()[-1] == whole["rows"]
    assert (tmp_path / "run" / "methods" / "0" / "rows.csv").stat().st_mtime_ns == first
    assert "made 0" not in again.text and "made 1" in again.text and not list(tmp_path.rglob(".part-*"))


def test_a_process_that_hangs_in_compiled_code_ends_all_the_same(server, tmp_path):
    """SIGTERM: after `PATIENCE`; another signal: at once. What it held is given up, what it has said is written."""
    assert signals.PATIENCE < 5
    jobs = [Job(server, tmp_path, "hang", run=name, signals=names) for name, names in HANGING.items()]
    assert [job.end() for job in jobs] == [143, 130, 143]
    for job, run in zip(jobs, HANGING, strict=True):
        assert "hanging" in job.text and "woken" not in job.text and not (tmp_path / run / FILE).exists()


HANGING = {"term": ["SIGTERM"], "int": ["SIGINT", "SIGINT"], "both": ["SIGINT", "SIGTERM"]}


@pytest.fixture(params=["training"])
def waiting(server, tmp_path, request):
    """A job that waits in the middle of its training, or of saving, until a file called go is there."""
    job = Job(server, tmp_path, moment=request.param, wait=str(tmp_path / "go"))
    while not (tmp_path / "go.waits").exists():
        assert server.ask(what="alive", pid=job.pid)["alive"], job.text
    return job


def go(folder: Path) -> None:
    (folder / "go").touch()


@pytest.mark.parametrize("options", [{}, {"batch": 5}, {"what": "rows"}])
def test_a_second_process_in_the_directory_is_told_who_uses_it(server, whole, waiting, tmp_path, options):
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    second = Job(server, tmp_path, **options)
    assert second.end() == 2
    assert f"error: {tmp_path}/run: in use by process {waiting.pid} on " in error_of(second)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    go(tmp_path)
    assert waiting.end() == 0 and waiting.text.splitlines()[-1] == whole["train"]
    assert steps_of(tmp_path / "run" / "prior") == [10, 20, 30, 40]


@pytest.mark.parametrize("waiting", ["training", "saving"], indirect=True)
@pytest.mark.parametrize("name", ["run", "run/prior"])
def test_a_process_whose_directory_is_renamed_stops_and_writes_nothing(server, whole, waiting, tmp_path, name):
    moved = tmp_path / "moved"
    (tmp_path / name).rename(moved)
    before = {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    go(tmp_path)
    assert waiting.end() == 2
    assert "was renamed" in error_of(waiting) and "nothing is written" in error_of(waiting)
    assert {path: path.read_bytes() for path in moved.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "run" / "prior").exists()
    if name == "run":
        again = Job(server, tmp_path, run="moved")
        assert again.end() == 0 and again.text.splitlines()[-1] == whole["train"]


def test_a_run_that_took_the_name_of_a_renamed_one_is_left_alone(server, whole, waiting, tmp_path):
    """The directory is renamed, another process trains another model under the old name, and the first wakes up."""
    (tmp_path / "run").rename(tmp_path / "moved")
    other = Job(server, tmp_path, batch=5)
    assert other.end() == 0 and other.text.splitlines()[-1] != whole["train"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"}
    go(tmp_path)
    assert waiting.end() == 2 and "was renamed" in error_of(waiting)
    for path, content in before.items():
        assert path == waiting.log or path.read_bytes() == content, path
    again = Job(server, tmp_path, batch=5)
    assert again.end() == 0 and again.text.splitlines()[-1] == other.text.splitlines()[-1]


def test_processes_that_start_together_are_never_both_in(server, whole, tmp_path):
    jobs = [Job(server, tmp_path, batch=batch) for batch in (4, 5, 4, 5)]
    codes = [job.end() for job in jobs]
    assert set(codes) <= {0, 2} and 0 in codes
    for job, code in zip(jobs, codes, strict=True):
        assert code == 0 or "in use by process" in error_of(job) or "train.batch was" in error_of(job)
    assert steps_of(tmp_path / "run" / "prior") == [10, 20, 30, 40]
    models = {job.text.splitlines()[-1] for job, code in zip(jobs, codes, strict=True) if code == 0}
    assert len(models) == 1
