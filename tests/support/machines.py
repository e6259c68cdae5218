"""Machines with little memory."""

from transdiff_jax.parallel import memory


def shrink(monkeypatch, size):
    """Lets the host, which CPU devices share, have `size` bytes."""
    monkeypatch.setattr(memory, "host_memory", lambda: size)
