"""The `diffplan` command: one entry point, and a module for each subcommand."""
