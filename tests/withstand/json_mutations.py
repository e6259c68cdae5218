"""Damage to JSON, to JSON lines and to compressed JSON: types, depth, size and names of values."""

import copy
import functools
import gzip
import json

DEEP = 100_000
VALUES = {
    **{"null": "null", "true": "true", "number": "5", "negative": "-1", "fraction": "0.5", "string": '"x"'},
    **{"empty_string": '""', "empty_list": "[]", "empty_object": "{}", "list": "[[1], null]", "object": '{"a": {}}'},
    **{"nan": "NaN", "infinity": "-Infinity", "huge": "1" + "0" * 30, "huge_float": "1e400", "digits": "9" * 5000},
    **{"deep_list": "[" * DEEP + "]" * DEEP, "deep_object": '{"a":' * DEEP + "1" + "}" * DEEP},
    **{"above": '"../../outside"', "absolute": '"/outside"', "zero_character": r'"a\u0000b"', "surrogate": r'"\ud800"'},
    **{"unicode_digits": '"٤٥²"', "line_break": r'"a\nb"'},
}
_MARK = "\u2603 here \u2603"


def whole(text, draw, content):
    """The whole file becomes another value."""
    return _packed(content, lambda old: text)


def leaf(text, draw, content):
    """One value inside, or of one line, becomes another."""

    def change(old):
        lines, place, value = _parsed(draw, old)
        holder, key = draw.choice(list(_places(value)))
        if holder is None:
            lines[place] = text
        else:
            holder[key] = _MARK
            lines[place] = json.dumps(value).replace(json.dumps(_MARK), text)
        return "\n".join(lines) + "\n"

    return _packed(content, change)


def structure(change, draw, content):
    """A change of one object or list inside."""

    def apply(old):
        lines, place, value = _parsed(draw, old)
        holders = [value] if isinstance(value, dict | list) else []
        holders += [h[k] for h, k in _places(value) if h is not None and isinstance(h[k], dict | list)]
        holders = [holder for holder in holders if holder]
        if holders:
            change(draw, draw.choice(holders))
        lines[place] = json.dumps(value)
        return "\n".join(lines) + "\n"

    return _packed(content, apply)


def _dropped(draw, holder):
    del holder[_key(draw, holder)]


def _added(draw, holder):
    if isinstance(holder, dict):
        holder["unknown"] = 1
    else:
        holder.append(copy.deepcopy(holder[0]))


def _renamed(draw, holder):
    if isinstance(holder, dict):
        key = _key(draw, holder)
        holder[f"{key} "] = holder.pop(key)
    else:
        holder.reverse()


def _emptied(draw, holder):
    holder.clear()


def repeated_keys(draw, content):
    """The same names twice: the second ones are null."""
    return _packed(content, lambda old: _repeat(old))


def _repeat(text):
    value = json.loads(text.splitlines()[0] if _is_lines(text) else text)
    if not isinstance(value, dict) or not value:
        return text + text
    first, second = json.dumps(value)[:-1], json.dumps(dict.fromkeys(value))[1:]
    return f"{first}, {second}\n"


JSON = {
    **{f"whole_{name}": functools.partial(whole, text) for name, text in VALUES.items()},
    **{f"leaf_{name}": functools.partial(leaf, text) for name, text in VALUES.items()},
    **{
        change.__name__[1:] + "_inside": functools.partial(structure, change)
        for change in (_dropped, _added, _renamed, _emptied)
    },
    "repeated_keys": repeated_keys,
}


def _packed(content, change):
    """Changes text, compressed if it was."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(change(gzip.decompress(content).decode()).encode(errors="surrogatepass"), mtime=0)
    return change(content.decode()).encode()


def _is_lines(text):
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def _parsed(draw, text):
    """The lines, the number of one of them, and its value; a file of one value is one line."""
    lines = text.splitlines() if _is_lines(text) else [text.strip()]
    place = draw.randrange(len(lines))
    return lines, place, json.loads(lines[place])


def _places(value, holder=None, key=None):
    """All values of a tree as the object or list that holds them and their place in it."""
    yield holder, key
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(items):
        yield from _places(inner, value, name)


def _key(draw, holder):
    return draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
