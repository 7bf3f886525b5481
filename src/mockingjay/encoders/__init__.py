"""Frontends and contexts, and the encoder they make together."""
