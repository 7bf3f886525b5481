"""Reusable steps of objectives."""
