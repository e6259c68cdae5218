"""How many rows are prepared before they are asked for: at most about a batch, whatever the threads and processes."""

import dataclasses

from transdiff_jax.config import DataConfig
from transdiff_jax.config.schema import LATENTS_PREFIX

# Rows of a chunk: enough that passing it on costs little, few enough that its copies do. Latents are small.
MOST_ROWS, MOST_LATENTS = 8, 32
# Chunks of a worker process that wait outside its own buffer: one with the worker, one in the queue between the
# processes, one with the thread that empties the queue, and one with the thread's own buffer.
IN_QUEUES = 4


@dataclasses.dataclass(frozen=True)
class ReadAhead:
    """What one thread prepares at once, and what one process prepares ahead."""

    chunk: int  # rows that a thread prepares; it divides the rows of a batch
    threads: int  # of each process that have something to do
    chunks: int  # finished or under way in each process's buffer

    def most_rows(self, workers: int) -> int:
        """Rows that all processes together hold ahead, of `workers` worker processes or none."""
        return self.chunk * (workers * (self.chunks + IN_QUEUES) if workers else self.chunks)


def read_ahead(rows: int, config: DataConfig) -> ReadAhead:
    """The plan for batches of `rows` rows in this process.

    All threads have a chunk to work on even if the batch is small, so then it is more than a batch: a row for each
    thread, and `IN_QUEUES` for each worker process.
    """
    processes, waiting = (config.workers, IN_QUEUES) if config.workers else (1, 0)
    most = rows // (processes * (config.read_threads + waiting))
    largest = min(MOST_LATENTS if config.source.startswith(LATENTS_PREFIX) else MOST_ROWS, max(1, most))
    chunk = max(size for size in range(1, largest + 1) if rows % size == 0)
    chunks = max(config.read_threads, rows // (processes * chunk) - waiting)
    return ReadAhead(chunk, config.read_threads, chunks)
