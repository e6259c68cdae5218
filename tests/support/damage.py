"""Damage to files."""


def array_files(step_folder):
    """Files of the first average, which both readers and a resumed run need."""
    return [path for path in sorted((step_folder / "ema_0").rglob("*")) if path.is_file() and path.stat().st_size]


def flip_byte(step_folder):
    largest = max(array_files(step_folder), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
