"""One process of a job that lists images: python -m tests.multiprocess.listing_worker PROCESS PORT KEPT FOLDER OTHER.

Started by listing_test.py. Process 1 is also asked to take OTHER for the same folder.
"""

import json
import sys
from pathlib import Path

import jax

from transdiff_jax.data.sources import list_file
from transdiff_jax.data.sources.folder_list import list_folder
from transdiff_jax.errors import UserError


def main(process, port, kept, folder, other):
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    scans = []
    list_file.list_folder = lambda folder: scans.append(folder) or list_folder(folder)
    listed = list_file.list_once(folder, kept)
    record = {"scans": len(scans), "classes": listed.classes, "names": listed.names.decode()}
    try:
        list_file.list_once((folder, other)[process], kept)
    except UserError as error:
        record["error"] = str(error)
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:]))
