"""Reads event files."""

import struct

from tensorboardX.proto.event_pb2 import Event


def read_events(path):
    """The records of an event file: length, checksum, content, checksum."""
    content, place, events = path.read_bytes(), 0, []
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 12 + length + 4
    return events
