"""Writes cases.safetensors: signals and what scipy.signal.resample makes of them.

For each case N: `N.in` [S] and `N.out` [samples] f32, computed in double. The lengths cover even and
odd, fewer and more samples, the same number, a large prime, and 441/512.

    /usr/bin/python3 make.py        (scipy 1.10.1, numpy 1.24.2; seed 51200)
"""
import json
import pathlib
import struct

import numpy
import scipy
from scipy.signal import resample

LENGTHS = [(8, 6), (8, 5), (9, 6), (9, 5), (6, 8), (5, 8), (6, 9), (5, 9), (8, 8), (9, 9), (1, 4), (4, 1),
           (3, 2), (2, 3), (7, 14), (14, 7), (2048, 1764), (3 * 2048, 3 * 1764), (1009, 869), (500, 1013)]

random = numpy.random.default_rng(51200)
arrays = {}
for number, (length, samples) in enumerate(LENGTHS):
    signal = random.standard_normal(length).astype(numpy.float32)
    arrays[f"{number}.in"] = signal
    arrays[f"{number}.out"] = resample(signal.astype(numpy.float64), samples).astype(numpy.float32)

header = {"__metadata__": {"scipy": scipy.__version__, "numpy": numpy.__version__, "seed": "51200"}}
offset = 0
for name, array in arrays.items():
    header[name] = {"dtype": "F32", "shape": list(array.shape),
                    "data_offsets": [offset, offset + array.nbytes]}
    offset += array.nbytes
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(pathlib.Path(__file__).with_name("cases.safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for array in arrays.values():
        file.write(array.tobytes())
