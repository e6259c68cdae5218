"""The two networks of TransDiff, the module that joins them, and their loss."""
