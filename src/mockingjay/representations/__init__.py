"""Representations that are not encoders of ours."""
