"""Input: sources of records, transforms, MRAR groups, and the Grain pipeline that joins them."""
