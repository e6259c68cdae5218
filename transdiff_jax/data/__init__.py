"""From sources of records to training batches."""
