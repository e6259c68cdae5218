"""The two networks of TransDiff and the module that joins them."""
