"""Checkpoints of one stage: the only place that knows orbax.

A checkpoint is a directory, written aside and renamed when it is whole. Its record says which stage it belongs to, what
leaves it holds and the sha256 of every file. A checkpoint is read only if all of that is as it should be. One that
cannot be read stays where it is: a damaged one is passed over for an older one, all else stops with the reason.
"""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from diffplan.runs.files import RunError, altered, difference, digest, file_digest, read_json, versions, write_json
from diffplan.runs.progress import say

Tree = TypeVar("Tree")

RECORD = "record.json"
FIELDS = {"identity", "step", "seconds", "leaves", "sha256", "files", "versions"}


def leaves(tree: Any) -> dict[str, str]:
    """Name, dtype (of a key: its type) and shape of every leaf."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in flat}


class Checkpoints:
    """The newest `keep` checkpoints of a stage. identity: of the stage, which each of its checkpoints carries."""

    def __init__(self, directory: Path, identity: str, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports routine steps as warnings
        self.directory, self.identity, self.keep = directory.absolute(), identity, keep
        self.damaged: set[int] = set()

    def steps(self) -> list[int]:
        """The steps of all checkpoints, newest first."""
        if not self.directory.is_dir():
            return []
        return sorted((int(path.name) for path in self.directory.iterdir() if path.name.isdecimal()), reverse=True)

    def save(self, step: int, state: Any, seconds: float = 0.0) -> None:
        """Save `state` as `step`, after so many seconds of training; when this returns, it is whole on disk."""
        self.directory.mkdir(exist_ok=True)
        for part in self.directory.glob(".part-*"):
            shutil.rmtree(part)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.directory))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(part / "state", state)
        files = {str(path.relative_to(part)): file_digest(path) for path in sorted(part.rglob("*")) if path.is_file()}
        about = {"identity": self.identity, "step": step, "seconds": seconds, "leaves": leaves(state)}
        write_json(part / RECORD, about | {"sha256": digest(state), "files": files, "versions": versions()})
        final = self.directory / str(step)
        if final.exists():
            aside = free_name(final, "damaged")
            final.rename(aside)
            say(f"{final}: damaged, kept as {aside.name}")
        self.damaged.discard(step)
        part.rename(final)
        for old in [step for step in self.steps() if step not in self.damaged][self.keep :]:
            shutil.rmtree(self.directory / str(old))

    def restore(self, like: Tree) -> tuple[int, Tree, float]:
        """The newest checkpoint that can be read: (step, state, seconds); (0, like, 0) if there is none at all.

        Raises:
            RunError: with the reason alone, if the newest sound one is of another stage or kind, or if all are damaged.
        """
        for step in self.steps():
            path = self.directory / str(step)
            record = read_json(path / RECORD)
            reason = self._damage(path, record)
            if reason is None:
                self._check_kind(path, record, like)
                try:
                    with ocp.StandardCheckpointer() as checkpointer:
                        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
                        state = checkpointer.restore(path / "state", target)
                    if digest(state) == record["sha256"]:
                        return step, state, record["seconds"]
                    reason = "its digest does not match"
                except Exception as error:  # orbax raises whatever its storage layer does
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
                if record["versions"] != versions():
                    reason += f"; other versions wrote it: {difference(record['versions'], versions())}"
            self.damaged.add(step)
            say(f"{path}: damaged, left there and passed over ({reason})")
        if self.damaged:
            raise RunError("none of its checkpoints can be read")
        return 0, like, 0.0

    def _damage(self, path: Path, record: Any) -> str | None:
        """What is wrong with the files of a checkpoint; None if nothing is."""
        if not isinstance(record, dict) or not FIELDS <= record.keys() or not isinstance(record["files"], dict):
            return f"{RECORD} is missing or damaged"
        if record["step"] != int(path.name):
            return f"it is of step {record['step']}"
        return altered(path, record["files"])

    def _check_kind(self, path: Path, record: dict[str, Any], like: Any) -> None:
        """Raise RunError unless a sound checkpoint is one of this stage, of these types."""
        name = f"{path.parent.name}/{path.name}"
        if record["identity"] != self.identity:
            raise RunError(f"{name} belongs to another stage ({record['identity']}); move it away")
        if reason := difference(record["leaves"], leaves(like)):
            how = "run as it was made (JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL, versions)"
            raise RunError(f"{name} is of another kind: {reason}; {how}")


def free_name(path: Path, word: str) -> Path:
    """A name beside `path` that nothing has: NAME.WORD-1, or a higher number."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists():
        number += 1
    return aside
