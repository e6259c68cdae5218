"""MRAR groups: which images of a class form one sequence, and the index files that hold them."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from transdiff_jax.data.groups.groups import RandomGroups, make_groups
    from transdiff_jax.data.groups.index import IndexedGroups
    from transdiff_jax.data.groups.making import write_neighbour_groups, write_random_groups

__all__ = [
    "IndexedGroups",
    "RandomGroups",
    "make_groups",
    "write_neighbour_groups",
    "write_random_groups",
]
