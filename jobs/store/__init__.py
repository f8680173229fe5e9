"""The output directory of a batch: its files, ledger, lock, logs, and how a video gets its name."""
