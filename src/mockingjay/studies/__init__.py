"""Experiments on representations: what follows from a choice, measured."""
