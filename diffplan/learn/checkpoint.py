"""Checkpoints: the only place that knows orbax.

A save is atomic (orbax writes aside and renames) and carries a digest of every leaf's bytes, which is checked when it is
restored: a checkpoint that was altered by hand, or that cannot be read, is named and passed over for the next older one.
"""

import hashlib
import logging
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffplan.runtime import say

Tree = TypeVar("Tree")


def digest(tree: Tree) -> str:
    """sha256 over the bytes of all leaves, in order; typed keys count by their data."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        raw = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        total.update(np.asarray(raw).tobytes())
    return total.hexdigest()


class Checkpoints:
    """The newest `keep` checkpoints of one training run, in `directory`."""

    def __init__(self, directory: Path, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports routine steps as warnings
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self.directory = directory.resolve()
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: Tree) -> None:
        """Save `state` as `step`, and wait until it is on disk."""
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), check=ocp.args.JsonSave({"sha256": digest(state)}))
        self.manager.save(step, args=args, force=True)
        self.manager.wait_until_finished()

    def restore(self, like: Tree) -> Tree:
        """The newest sound checkpoint with the structure, shapes and dtypes of `like`; `like` itself if there is none.

        A damaged checkpoint is named on the terminal, removed, and the next older one is tried.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), check=ocp.args.JsonRestore())
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                found = self.manager.restore(step, args=args)
                if digest(found.state) == found.check["sha256"]:
                    return found.state
                reason = "its digest does not match"
            except Exception as error:  # orbax raises whatever its storage layer does
                reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}" if str(error) else type(error).__name__
            say(f"checkpoint {self.directory.name}/{step} is damaged and will not be used ({reason})")
            self.manager.delete(step)
        return like

    def close(self) -> None:
        """Release orbax's threads."""
        self.manager.close()
