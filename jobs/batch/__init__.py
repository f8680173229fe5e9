"""A durable batch: its storage, ledger, lock, logs and gallery."""
