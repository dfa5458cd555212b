"""Ways to damage a file: its bytes, the JSON in it, the pickle in it, the folder around it. All drawn from one rng."""

import io
import json
import os
import pickle
import zipfile

NUMBERS = (0, 1, -1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**64 - 1, 10**30)
VALUES = (
    None, True, False, "", "\0", "../x", "/etc/passwd", "..", "\ud800", "a\nb", "x" * 5000, "__metadata__", "nan",
    "F8_E4M3", "F64", "BOOL", "I8", "BF16", [], {}, [1], {"a": 1}, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "(a+)+$", "(", "q_proj", "quantization_config",
)  # fmt: skip
OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlnopqrstu]}" + bytes((*range(0x80, 0x83), *range(0x85, 0x97)))
TWICE = b'{"a":1,"a":2}'
CALLS = (
    b"cposix\nsystem\n(X\x0e\x00\x00\x00touch executedtR",
    b"c__builtin__\neval\n(X\x01\x00\x00\x001tR",
    b"ctorch._utils\n_rebuild_tensor_v2\n(tR",
    b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR",
    b"ccollections\nOrderedDict\n(tR",
)


def damage_bytes(rng, data):
    """Return the data with one to three random changes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else min(len(data), int(rng.expovariate(1 / 60)))
        many = rng.choice((1, 1, 2, 8, 64, 1000))
        other = rng.randrange(len(data) + 1)
        piece = data[other : other + many]
        change = rng.randrange(9)
        if change == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif change == 2:
            del data[at:]
        elif change == 3:
            del data[at : at + many]
        elif change == 4:
            data[at:at] = rng.randbytes(many)
        elif change == 5:
            data[at:at] = piece
        elif change == 6:
            data[at : at + len(piece)] = piece
        elif change == 7:
            data[at : at + 8] = (rng.choice(NUMBERS) % 2**64).to_bytes(8, "little")
        else:
            data[at : at + many] = bytes(min(many, len(data) - at))
    return bytes(data)


def damage_json(rng, text):
    """Return JSON with one to three nodes changed, removed, renamed or doubled; now and then no JSON at all."""
    if rng.random() < 0.05:
        return rng.choice(
            (b"", b"[" * 50_000, b"{", b"null", b"[]", b'"x"', b"{}", b"\xff\xfe", b'{"a":1,"a":2}', b"1e999")
        )
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = list(_nodes(content))
        if not nodes:
            break
        holder, key = rng.choice(nodes)
        change = rng.randrange(6)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = rng.choice(VALUES)
        elif change == 2:
            holder[key] = rng.choice(NUMBERS)
        elif change == 3 and isinstance(holder[key], int):
            holder[key] += rng.choice((-8, -4, -1, 1, 4, 8, 1000))
        elif change == 4 and isinstance(holder, dict):
            holder[str(rng.choice((*VALUES, *holder)))] = holder.pop(key)
        else:
            others = [value for value in nodes if value != (holder, key)]
            if others:
                other, name = rng.choice(others)
                holder[key] = json.loads(json.dumps(other[name]))
    made = json.dumps(content).encode()
    return damage_bytes(rng, made) if rng.random() < 0.2 else made


def _nodes(content):
    """Every place in nested dicts and lists, as holder and key."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield content, key
        yield from _nodes(value)


def damage_header(rng, data):
    """Return a safetensors file with its header's JSON changed, and mostly the length that fits."""
    length = int.from_bytes(data[:8], "little")
    text = damage_json(rng, data[8 : 8 + length])
    claimed = len(text) if rng.random() < 0.9 else rng.choice(NUMBERS) % 2**64
    return claimed.to_bytes(8, "little") + text + data[8 + length :]


def damage_pickle(rng, data):
    """Return a pickle with instructions changed, or calls put in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data))
        change = rng.randrange(5)
        if change == 0:
            data[at] = rng.choice(OPCODES)
        elif change == 1:
            data[at:at] = bytes(rng.choice(OPCODES) for _ in range(rng.randrange(1, 5)))
        elif change == 2:
            data[at:at] = rng.choice(CALLS)
        elif change == 3:
            data[at:at] = pickle.dumps(rng.choice(NUMBERS), protocol=2)[2:-1]
        else:
            data = bytearray(damage_bytes(rng, bytes(data)))
        if not data:
            break
    return bytes(data)


def damage_archive(rng, data):
    """Return a zip archive with a part changed, renamed, doubled, left out or compressed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names) if rng.random() < 0.4 else next(name for name in names if name.endswith("data.pkl"))
        for name in names:
            content = old.read(name)
            if name != chosen:
                new.writestr(name, content)
                continue
            change = rng.randrange(10)
            if change == 0:
                new.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED)
            elif change == 1:
                new.writestr(rng.choice(("../x", "/x", "a/b/data.pkl", "x/constants.pkl", "byteorder")), content)
            elif change > 2:
                damage = damage_pickle if name.endswith("data.pkl") else damage_bytes
                new.writestr(name, damage(rng, content))
    return made.getvalue() if rng.random() < 0.9 else damage_bytes(rng, made.getvalue())


def damage_folder(rng, folder, names):
    """Put something else in the place of a file: nothing, an empty file, a folder, a pipe, links, one file more."""
    place = folder / rng.choice(names)
    change = rng.randrange(8)
    data = place.read_bytes()
    if change < 7:
        place.unlink()
    if change == 1:
        place.write_bytes(b"")
    elif change == 2:
        place.mkdir()
    elif change == 3:
        os.mkfifo(place)
    elif change == 4:
        place.symlink_to("/etc/passwd")
    elif change == 5:
        place.symlink_to(place)
    elif change == 6:
        place.symlink_to("/dev/zero")
    elif change == 7:
        (folder / rng.choice(("more.safetensors", "model.safetensors", "more.bin", ".metadata"))).write_bytes(data)
