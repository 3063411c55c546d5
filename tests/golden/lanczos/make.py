#!/usr/bin/env python3
"""Makes resize.safetensors: pictures resized by Pillow's LANCZOS.

Needs: pillow, numpy. Run: python3 make.py (in this folder). Made with Pillow 13.0.0 and seed 11.
Each case N: `N.image` U8 [Y, X, 3] and `N.resized` U8 [Y', X', 3].
"""
import json
import struct

import numpy as np
import PIL
from PIL import Image

CASES = {  # (width, height) of the picture, of the result
    "shrink": ((97, 61), (32, 32)),
    "enlarge": ((13, 9), (64, 32)),
    "one_axis": ((48, 20), (48, 32)),
    "both_ways": ((90, 20), (32, 64)),
}


def main() -> None:
    rng = np.random.default_rng(11)
    tensors = {}
    for name, ((width, height), size) in CASES.items():
        y, x = np.mgrid[0:height, 0:width]
        smooth = np.stack([128 + 127 * np.sin(x / 5 + y / 7), 255 * x / width, 255 * (y % 8 > 3)], -1)
        picture = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255).astype(np.uint8)
        tensors[f"{name}.image"] = picture
        tensors[f"{name}.resized"] = np.asarray(Image.fromarray(picture).resize(size, Image.LANCZOS))
    header, data = {"__metadata__": {"source": f"Pillow {PIL.__version__}"}}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": "U8", "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open("resize.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


main()
