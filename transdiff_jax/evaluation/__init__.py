"""Scores of sample sets."""
