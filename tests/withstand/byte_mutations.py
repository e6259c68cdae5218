"""Damage to the bytes of a file, whatever it holds. Each takes random numbers and the content, and returns another."""

import re

BLOCK = 64
HEADER = 512  # bytes at the start of a file that are likely to hold lengths
_NUMBERS = re.compile(rb"(?<![\w.])\d{1,9}(?![\w.])")


def flipped(draw, content):
    return _changed(draw, content, 1, lambda old: old ^ (1 << draw.randrange(8)))


def flipped_often(draw, content):
    return _changed(draw, content, 20, lambda old: draw.randrange(256))


def zeroed(draw, content):
    start = draw.randrange(max(1, len(content)))
    return content[:start] + bytes(len(content[start : start + BLOCK])) + content[start + BLOCK :]


def lengths_up(draw, content):
    """Four bytes near the start become the largest number, as in a damaged length."""
    return _overwritten(draw, content, b"\xff\xff\xff\x7f")


def lengths_negative(draw, content):
    return _overwritten(draw, content, b"\xff" * 8)


def lengths_zero(draw, content):
    return _overwritten(draw, content, bytes(4))


def end_changed(draw, content):
    """A bit near the end, where archives keep their directories."""
    if not content:
        return b"x"
    place = len(content) - 1 - draw.randrange(min(len(content), BLOCK))
    return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]


def emptied(draw, content):
    return b""


def halved(draw, content):
    return content[: len(content) // 2]


def cut(draw, content):
    return content[: draw.randrange(max(1, len(content)))]


def cut_last(draw, content):
    return content[:-1]


def extended(draw, content):
    return content + draw.randbytes(100)


def extended_by_zeros(draw, content):
    return content + bytes(4096)


def replaced(draw, content):
    return draw.randbytes(max(16, min(len(content), 1 << 16)))


def doubled(draw, content):
    return content + content


def marked(draw, content):
    """A byte order mark, which some editors add."""
    return b"\xef\xbb\xbf" + content


def windows_lines(draw, content):
    return content.replace(b"\n", b"\r\n")


def utf16(draw, content):
    return content.decode("latin-1").encode("utf-16")


def not_text(draw, content):
    return content.replace(b"e", b"\xe9\xff") + b"\xff"


def number_huge(draw, content):
    """A decimal number somewhere becomes absurdly large, in text and in the headers of arrays."""
    return _number(draw, content, b"99999999999999999999999")


def number_negative(draw, content):
    return _number(draw, content, b"-7")


def number_of_many_digits(draw, content):
    """More digits than Python turns into a number."""
    return _number(draw, content, b"9" * 5000)


BYTES = {
    function.__name__: function
    for function in (
        *(flipped, flipped_often, zeroed, lengths_up, lengths_negative, lengths_zero, end_changed, emptied, halved),
        *(cut, cut_last, extended, extended_by_zeros, replaced, doubled, marked, windows_lines, utf16, not_text),
        *(number_huge, number_negative, number_of_many_digits),
    )
}


def _changed(draw, content, count, change):
    content = bytearray(content or b"x")
    for _ in range(count):
        place = draw.randrange(len(content))
        content[place] = change(content[place])
    return bytes(content)


def _overwritten(draw, content, new):
    start = draw.randrange(max(1, min(len(content), HEADER) - len(new)))
    return content[:start] + new + content[start + len(new) :]


def _number(draw, content, new):
    found = list(_NUMBERS.finditer(content))
    if not found:
        return new + content
    place = draw.choice(found)
    return content[: place.start()] + new + content[place.end() :]
