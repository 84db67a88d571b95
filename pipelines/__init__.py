"""Stages wired to files, settings and order."""
