"""Checkpoints of one stage: the only place that knows orbax.

A checkpoint is a directory, written aside and renamed when it is whole. Its record says which stage it belongs to, what
leaves it holds and the sha256 of every file. A checkpoint is read only if all of that is as it should be. One that
cannot be read stays where it is: a damaged one is passed over for an older one, all else stops with the reason.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from diffplan.runs.files import RunError, digest, file_digest, read_json, versions, write_json
from diffplan.runs.progress import say

Tree = TypeVar("Tree")

RECORD = "record.json"


def leaves(tree: Any) -> dict[str, str]:
    """Name, dtype (of a key: its type) and shape of every leaf."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in flat}


def unlike(recorded: Any, wanted: dict[str, str]) -> str | None:
    """The first leaf of a record that is not as wanted, in words."""
    if not isinstance(recorded, dict):
        return "its record lists no leaves"
    for name in wanted.keys() | recorded.keys():
        there, here = recorded.get(name), wanted.get(name)
        if there != here:
            what = "nothing" if there is None else there
            return f"{name} is {what} there and {'nothing' if here is None else here} here"
    return None


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
        part, final = self.directory / f".part-{step}", self.directory / str(step)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(part / "state", state)
        files = {str(path.relative_to(part)): file_digest(path) for path in sorted(part.rglob("*")) if path.is_file()}
        about = {"identity": self.identity, "sha256": digest(state), "leaves": leaves(state), "seconds": seconds}
        write_json(part / RECORD, about | {"files": files, "versions": versions()})
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
            RunError: if the newest is of another stage or of another kind, or if all are damaged.
        """
        steps = self.steps()
        for step in steps:
            path = self.directory / str(step)
            record = read_json(path / RECORD)
            reason = self._damage(path, record)
            if reason is None:
                self._fits(path, record, like)
                try:
                    with ocp.StandardCheckpointer() as checkpointer:
                        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
                        state = checkpointer.restore(path / "state", target)
                    if digest(state) == record["sha256"]:
                        return step, state, record["seconds"]
                    reason = "its digest does not match"
                except Exception as error:  # orbax raises whatever its storage layer does
                    reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
            if record is not None and record.get("versions") != versions():
                reason += "; other versions wrote it, see its record.json"
            self.damaged.add(step)
            say(f"{path}: damaged, left there and passed over ({reason})")
        if steps:
            raise RunError(
                f"{self.directory}: none of its checkpoints can be read; "
                "--new-settings keeps the stage aside and makes it anew"
            )
        return 0, like, 0.0

    def _damage(self, path: Path, record: Any) -> str | None:
        """What is wrong with the files of a checkpoint; None if nothing is."""
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            return f"{RECORD} is missing or damaged"
        for name, expected in record["files"].items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if file_digest(path / name) != expected:
                return f"{name} is altered"
        return None

    def _fits(self, path: Path, record: dict[str, Any], like: Any) -> None:
        """Raise RunError if a sound checkpoint is not one of this stage, on these types."""
        if record.get("identity") != self.identity:
            raise RunError(f"{path}: belongs to another stage ({record.get('identity')}); left there, move it away")
        if reason := unlike(record.get("leaves"), leaves(like)):
            raise RunError(
                f"{path}: is of another kind, {reason}; left there. Run as it was made "
                "(JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL, versions), or --new-settings to keep it aside and train anew"
            )


def free_name(path: Path, word: str) -> Path:
    """A name beside `path` that nothing has: NAME.WORD-1, or a higher number."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{word}-{number}")).exists():
        number += 1
    return aside
