"""Checkpoints: the only place that knows orbax.

A save is atomic (orbax writes aside and renames) and carries a digest of every leaf's bytes, which is checked when it
is restored: a checkpoint that was altered by hand, or that cannot be read, is named and passed over for the next older
one. The digest of every file lies beside them and is checked first: orbax reads files in the background, and on a
damaged one its threads go on complaining, in pages, after the error has been dealt with.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from diffplan.runtime import file_digest, say, write_json

Tree = TypeVar("Tree")


def digest(tree: Any) -> str:
    """sha256 over the bytes of all leaves, in order; typed keys count by their data."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        total.update(np.asarray(raw).tobytes())
    return total.hexdigest()


FILES = "files.json"
"""In a checkpoint's directory: the sha256 of every other file in it."""


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a checkpoint's directory, but for the record of them."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path): file_digest(folder / path) for path in paths if path.name != FILES}


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, in words; None if nothing is, or if a kill came before their record."""
    try:
        recorded = json.loads((folder / FILES).read_text())
    except (OSError, ValueError):
        return None
    result = file_digests(folder)
    changed = [name for name in recorded if result.get(name) != recorded[name]]
    return f"{changed[0]} is {'altered' if changed[0] in result else 'missing'}" if changed else None


class Checkpoints:
    """The newest `keep` checkpoints of one training run, in `directory`."""

    def __init__(self, directory: Path, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports routine steps as warnings
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self.directory = directory.resolve()
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Any) -> None:
        """Save `state` as `step`, and wait until it is on disk."""
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), check=ocp.args.JsonSave({"sha256": digest(state)})
        )
        self.manager.save(step, args=args, force=True)
        self.manager.wait_until_finished()
        write_json(self.directory / str(step) / FILES, file_digests(self.directory / str(step)))

    def restore(self, like: Tree) -> Tree:
        """The newest sound checkpoint with the structure, shapes and dtypes of `like`; `like` itself if there is none.

        A damaged checkpoint is named on the terminal, removed, and the next older one is tried.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), check=ocp.args.JsonRestore())
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                if (reason := damage(self.directory / str(step))) is None:
                    result = self.manager.restore(step, args=args)
                    if digest(result["state"]) == result["check"]["sha256"]:
                        return result["state"]
                    reason = "its digest does not match"
            except Exception as error:  # orbax raises whatever its storage layer does
                reason = (
                    f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
                    if str(error)
                    else type(error).__name__
                )
            say(f"checkpoint {self.directory}/{step} is damaged and will not be used ({reason})")
            self.manager.delete(step)
        return like

    def close(self) -> None:
        """Release orbax's threads."""
        self.manager.close()
