"""The digits demo: its judge, its report, its figures."""
