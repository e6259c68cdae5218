"""Checks that all processes of a job read the same data, from one folder or from copies of it."""

import jax

from transdiff_jax.data.sources.base import Labelled
from transdiff_jax.parallel.processes import check_same


def check_same_records(source: Labelled, name: str) -> None:
    """Compares the number of records, the classes and some names of records. Every process must call this.

    Args:
        source: of this process.
        name: what holds its address, for the error, such as "config.data.source=folder:images".

    Raises:
        UserError: in all processes, if one has others.
    """
    if jax.process_count() == 1:
        return  # the names of some sources lie in their records, which would be read
    count = len(source)
    shown = sorted({0, count // 3, count // 2, count - 1}) if count else []
    outline = [count, source.class_names, [source.id(index) for index in shown]]
    check_same(
        str(outline),
        f"{name} does not hold the same records in all processes of the job: mount one folder on all hosts, or give "
        "each the same copy",
    )
