"""MRAR groups: which images of a class form one sequence, and the index files that hold them."""
