"""One loop for everything that learns, and what keeps a run alive: checkpoints, ledger, signals, ranks."""
