"""Corpora: utterances, their splits and health, and batches of them."""
