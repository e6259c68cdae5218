"""Cached latents: the folder's format, the job that makes it, and reading it."""
