#!/usr/bin/env python3
"""Writes a manifest of COUNT mixed tiny items: sizes, lengths, steps, one and two guidance passes, both
decoders, text, images and driving sounds. `shuffled` changes their order and nothing else.
Usage: farm_items.py COUNT [shuffled]; expects photo.jpg, voice.wav and model/ beside the manifest."""
import json
import random
import sys

count = int(sys.argv[1])
draw = random.Random(7)
items = []
for i in range(count):
    item = {"name": f"item-{i:04}", "prompt": f"Scene {i % 23}", "seed": draw.randrange(1 << 30),
            "resolution": draw.choice(["32x32", "64x32", "64x64", "96x64"]),
            "steps": {"base": draw.choice([1, 2, 3])}}
    kind = i % 5
    if kind == 1:
        item["image"] = "photo.jpg"
    if kind == 3:
        item["audio"] = "voice.wav"
    item["frames"] = draw.choice([1, 2, 5, 9])
    if i % 11 == 4:
        item["passes"] = 2
    if i % 13 == 6:
        item["decoder"] = "wan"
    if i % 17 == 8:
        item.update(resolution="64x64", sr="540p_sr", base_resolution="32x32")
        item["steps"]["sr"] = 1
    items.append(item)
if sys.argv[2:] == ["shuffled"]:
    random.Random(1).shuffle(items)
manifest = {"version": 1, "name": "farm", "model": {"path": "model", "variant": "distill", "precision": "fp32"},
            "outputs": {"video": {"preset": "ultrafast"}, "latents": {"dtype": "f32"}},
            "items": items}
print(json.dumps(manifest, indent=1))  # JSON is YAML
