"""Reads the files that wandb leaves when it is offline."""

import json
import struct

BLOCK = 2**15
FILE_HEADER = 7


def read_records(folder):
    """The records of an offline run's folder: LevelDB's log format, after a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    content, place, parts, records = path.read_bytes(), FILE_HEADER, b"", []
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def history(records):
    """What was logged: a dictionary for each call."""
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
