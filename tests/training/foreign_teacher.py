"""A teacher of another program, with nothing but Python's standard library.

usage: foreign_teacher.py INPUTS DUMP

Reads what `trainer dump-teacher --inputs` wrote and says of every frame that there is one vehicle, where most of its points are. The
format is described in src/distill/dump.rs.
"""

import glob
import json
import math
import os
import struct
import sys

STRIDE = 2


def read_shard(path):
    with open(path, "rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_header))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: (of["shape"], data[slice(*of["data_offsets"])]) for name, of in header.items()}


def write_shard(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def look(shape, data, head):
    """Logits [K, H, W] and boxes [1, 9] of a frame's points."""
    x0, y0, _, x1, y1, _ = head["range"]
    edge = head["voxel_size"][0] * STRIDE
    height, width = round((y1 - y0) / edge), round((x1 - x0) / edge)
    counts = [0] * (height * width)
    for row in struct.iter_unpack(f"<{shape[1]}f", data):
        counts[int((row[1] - y0) / edge) * width + int((row[0] - x0) / edge)] += 1
    fullest = counts.index(max(counts))
    vehicle = [math.log1p(count) - 4.0 for count in counts]
    others = [-4.0] * (len(head["classes"]) - 1) * len(counts)
    middle = [x0 + (fullest % width + 0.5) * edge, y0 + (fullest // width + 0.5) * edge]
    heat_map = struct.pack(f"<{len(vehicle) + len(others)}e", *vehicle, *others)
    box = struct.pack("<9f", *middle, 0.0, 4.0, 2.0, 1.5, 0.0, 0.9, 0)
    return [len(head["classes"]), height, width], heat_map, box


def main(inputs, dump):
    with open(os.path.join(inputs, "dump.json")) as file:
        head = json.load(file)
    os.makedirs(dump)
    with open(os.path.join(dump, "dump.json"), "w") as file:
        json.dump(head | {"content": "outputs", "teacher": "counts points", "stride": STRIDE}, file)
    for path in sorted(glob.glob(os.path.join(inputs, "*.safetensors"))):
        out = {}
        for name, (shape, data) in read_shard(path).items():
            if name.endswith("/points"):
                frame = name.removesuffix("/points")
                map_shape, heat_map, box = look(shape, data, head)
                out[frame + "/heat_map"] = ("F16", map_shape, heat_map)
                out[frame + "/boxes"] = ("F32", [1, 9], box)
        write_shard(os.path.join(dump, os.path.basename(path)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
