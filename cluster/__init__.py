"""Gangs of workers on Ray that share one queue of items; knows nothing of what the items are."""
