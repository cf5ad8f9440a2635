"""The worlds that ship, one file a family: each makes a `diffplan.task.Task`."""
