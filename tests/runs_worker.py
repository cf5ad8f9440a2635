"""The server of test_runs_signals: jobs on standard input; every job is a fork, and ends as a command does.

A job trains a toy model or makes rows in a run. At a moment of its own it sends itself a signal, or waits for a file.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from diffplan import runs
from diffplan.cli import command
from diffplan.learn import train
from diffplan.learn.train import TrainSettings
from diffplan.runs import Run, checkpoints, keep, signals, stage
from diffplan.runs.lock import locked

TASK = train.Task(
    lambda params, key, x: (jnp.sum((params["w"] - x) ** 2 * (1 + jax.random.uniform(key))), {}),
    lambda key, mean: mean + jax.random.normal(key, (3,)),
)


def at(moment: str, happens) -> None:
    """Make something happen once: in training, after step 30 of 40; while step 40 is saved; or after it was."""
    write, save = runs.Metrics.write, checkpoints.Checkpoints.save
    digest = checkpoints.digest

    def written(self, step, values):
        write(self, step, values)
        if moment == "training" and step == 30:
            happens()

    def saved(self, step, *rest):
        if moment == "saving" and step == 40:
            checkpoints.digest = lambda tree: happens() or digest(tree)
        save(self, step, *rest)
        if moment == "finishing" and step == 40:
            happens()

    runs.Metrics.write, checkpoints.Checkpoints.save = written, saved


def disturbed(job: dict) -> None:
    """Arrange for the signal, or the wait, that a job asks for."""

    def happens() -> None:
        if "wait" in job:
            Path(job["wait"] + ".waits").touch()
            while not Path(job["wait"]).exists():
                time.sleep(0.01)
        if "signal" in job:
            os.kill(os.getpid(), getattr(signal, job["signal"]))

    at(job.get("moment", ""), happens)


def training(job: dict) -> None:
    """A toy model."""
    disturbed(job)
    config = TrainSettings(steps=40, batch=job.get("batch", 4), learning_rate=0.01, warmup=5, chunk=10, save_every=20)
    fit = lambda recorder: train.train(TASK, {"w": jnp.zeros(3)}, jnp.asarray(2.0), config, recorder)
    print(stage(Run(Path(job["run"])), "prior", fit, {"train": config}).identity)


def rows(job: dict) -> None:
    """Three files of rows; the signal comes when the second is half written."""
    made = []
    for number in range(3):

        def make(folder: Path, number: int = number) -> None:
            print("made", number)
            text = str(jax.random.normal(jax.random.key(number), (5,)))
            (folder / "rows.csv").write_text(text[:10])
            if number == 1 and "signal" in job:
                os.kill(os.getpid(), getattr(signal, job["signal"]))
            (folder / "rows.csv").write_text(text)

        made.append(keep(Run(Path(job["run"])), f"methods/{number}", make, {"number": number}, files=("rows.csv",)))
    print(*(kept.identity for kept in made))


def hang(job: dict) -> None:
    """As in one long call of compiled code: no signal's handler ends it."""
    for number, name in enumerate(job["signals"]):
        threading.Timer(0.2 + 0.2 * number, os.kill, (os.getpid(), getattr(signal, name))).start()
    with locked(Path(job["run"])), signals.deferred():
        print("hanging")
        time.sleep(120)
        print("woken")


def start(job: dict) -> int:
    """Fork a process; returns its number."""
    if pid := os.fork():
        return pid
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(0)
    code = 0
    try:
        command.run(lambda: {"train": training, "rows": rows, "hang": hang}[job["what"]](job))
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Answer every line."""
    for line in sys.stdin:
        job = json.loads(line)
        if job["what"] == "wait":
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(job["pid"], 0)[1])}
        elif job["what"] == "alive":
            time.sleep(0.02)
            answer = {"alive": os.waitid(os.P_PID, job["pid"], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None}
        else:
            answer = {"pid": start(job)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
