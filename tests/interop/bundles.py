"""Writes TensorFlow checkpoints, right ones and hostile ones, from the description of the format.

It shares nothing with the reader; `data/` holds files of the real TensorFlow that both are held against.
"""

from functools import cache

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "uint16": 14, "float16": 19}  # uint16: bits of a bfloat16


@cache
def crc_step(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ crc_step(crc & 255 ^ byte)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(value):
    value %= 2**64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def numeral(field, value):
    return varint(field << 3) + varint(value) if value else b""


def nested(field, message):
    return varint(field << 3 | 2) + varint(len(message)) + message


def header(shards=1, byte_order=0):
    return numeral(1, shards) + numeral(2, byte_order) + nested(3, numeral(1, 1))


def entry(dtype, shape, shard, offset, size, crc, slices=()):
    dims = b"".join(nested(2, numeral(1, size)) for size in shape)
    message = numeral(1, dtype) + nested(2, dims) + numeral(3, shard) + numeral(4, offset) + numeral(5, size)
    return message + varint(6 << 3 | 5) + crc.to_bytes(4, "little") + b"".join(nested(7, piece) for piece in slices)


def block(pairs, interval=16, kind=0):
    """One block with its trailer: every `interval`-th key written out, the others without what they share."""
    body, restarts, previous = b"", [], b""
    for index, (key, value) in enumerate(pairs):
        shared = 0
        if index % interval == 0:
            restarts.append(len(body))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    return sealed(body + b"".join(n.to_bytes(4, "little") for n in [*(restarts or [0]), max(1, len(restarts))]), kind)


def sealed(body, kind=0):
    body += bytes([kind])
    return body + masked_crc(body).to_bytes(4, "little")


def table(pairs, per_block=7, interval=16, kind=0):
    """A whole table; `pairs` are written in the order they come in."""
    file, handles = b"", []
    for start in range(0, len(pairs), per_block):
        part = pairs[start : start + per_block]
        data = block(part, interval, kind)
        handles.append((part[-1][0], varint(len(file)) + varint(len(data) - 5)))
        file += data
    return footed(file, block(handles, 1))


def footed(file, index):
    """Blocks, a block of no statistics, the index block and a footer that points at both."""
    nothing = block([])
    places = varint(len(file)) + varint(len(nothing) - 5)
    file += nothing
    places += varint(len(file)) + varint(len(index) - 5)
    return file + index + places.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def lay_out(tensors, shards=1):
    """Fields of every tensor's entry, and the bytes of each shard."""
    data, entries = [b""] * shards, {}
    for index, (name, values) in enumerate(sorted(tensors.items())):
        raw, shard = values.tobytes(), index % shards
        place = {"shard": shard, "offset": len(data[shard]), "size": len(raw), "crc": masked_crc(raw)}
        entries[name] = {"dtype": DTYPES[str(values.dtype)], "shape": list(values.shape), **place}
        data[shard] += raw
    return entries, data


def write(prefix, tensors, *, shards=1, change=None, head=None, **layout):
    """Write a checkpoint; `change` may alter the entries before they are written with right checksums."""
    entries, data = lay_out(tensors, shards)
    if change:
        change(entries)
    pairs = [(b"", header(shards) if head is None else head)]
    pairs += sorted((name.encode(), entry(**fields)) for name, fields in entries.items())
    prefix.with_name(prefix.name + ".index").write_bytes(table(pairs, **layout))
    for shard, raw in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(raw)
    return prefix
