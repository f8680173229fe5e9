"""Sequence parallelism: one video's tokens on several ranks, and how they attend to each other."""
