"""Command modules: each defines the command that has the name of its file."""
