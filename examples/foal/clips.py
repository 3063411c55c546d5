"""The world that foal knows: a coloured body of some material falls and bounces one to three times.

Everything is drawn from a seed, so that the truth is known: what moves, what it is made of, and when it hits the
ground. Pictures are RGB in [0, 1], sound is mono at 51,200 Hz (2048 samples a picture), lengths are pixels of the
64x64 picture and seconds.
"""
from dataclasses import dataclass

import numpy as np

PICTURES, FPS, SIZE, RATE = 41, 25, 64, 51200
COLOURS = ["red", "green", "blue", "yellow", "magenta", "cyan"]
RGB = np.array([[1.0, 0.1, 0.1], [0.1, 0.9, 0.1], [0.15, 0.3, 1.0],
                [1.0, 0.9, 0.1], [0.9, 0.2, 0.9], [0.1, 0.9, 0.9]], np.float32)
SHAPES = ["ball", "cube", "pyramid"]
MATERIALS = ["rubber", "wood", "metal"]
DIRECTIONS = ["left", "straight", "right"]
PLACES = ["night", "dusk", "day"]
WALL = np.array([[0.10, 0.10, 0.12], [0.36, 0.33, 0.35], [0.80, 0.80, 0.78]], np.float32)
FLOOR = np.array([[0.26, 0.26, 0.28], [0.52, 0.50, 0.48], [0.60, 0.60, 0.58]], np.float32)
# Partials of a struck material: (hertz, share), and the decay in seconds.
PARTIALS = [((140.0, 1.0), (280.0, 0.3)), ((250.0, 1.0), (500.0, 0.25)), ((420.0, 1.0), (630.0, 0.25))]
DECAY = [0.045, 0.035, 0.120]
GROUND, GRAVITY, RESTITUTION = 58.0, 980.0, 0.85
HIGHEST_SPEED = 260.0
# Never seen in training: each colour once, each shape and each material twice.
HELD_OUT = {(0, 0, 2), (1, 1, 0), (2, 2, 1), (3, 0, 1), (4, 1, 2), (5, 2, 0)}


@dataclass
class Clip:
    colour: int
    shape: int
    material: int
    bounces: int  # 1, 2, 3
    direction: int
    place: int
    radius: float
    x: float  # at the start
    speed: float  # to the right, pixels a second
    height: float  # of the fall
    first: int  # impact, in pictures: where a latent of the sound begins
    between: int  # the first two impacts, in pictures

    def impacts(self):
        return np.cumsum([self.first, self.between, self.later()])[: self.bounces] / FPS

    def later(self):
        """Pictures between the second and the third impact."""
        return int(RESTITUTION * self.between + 0.5)

    def levels(self):
        """Loudness of each impact: its speed, over the highest that there is."""
        fall = np.sqrt(2 * GRAVITY * self.height)
        rebounds = GRAVITY / FPS / 2 * np.array([self.between, self.later()])
        return np.array([fall, *rebounds])[: self.bounces] / HIGHEST_SPEED

    def height_at(self, t):
        """Height of the body over its place on the ground, at times t."""
        t = np.asarray(t, np.float64)
        first = self.first / FPS
        falling = np.clip(t - (first - np.sqrt(2 * self.height / GRAVITY)), 0, None)
        h = np.where(t < first, self.height - GRAVITY / 2 * falling**2, 0.0)
        times = list(self.impacts())
        for begin, length in zip(times[:-1], (self.between / FPS, self.later() / FPS)):
            s = t - begin
            h = np.where((s >= 0) & (s < length), GRAVITY / 2 * s * (length - s), h)
        return np.maximum(h, 0.0)

    def held_out(self):
        return (self.colour, self.shape, self.material) in HELD_OUT


def draw_clip(rng, held_out=False):
    """A random clip; held_out: one of the combinations kept from training, otherwise none of them."""
    while True:
        colour, shape, material = (int(rng.integers(n)) for n in (6, 3, 3))
        if ((colour, shape, material) in HELD_OUT) == held_out:
            break
    direction = int(rng.integers(3))
    speed = [-1.0, 0.0, 1.0][direction] * rng.uniform(11.0, 15.0)
    x = [rng.uniform(38.0, 50.0), rng.uniform(20.0, 44.0), rng.uniform(14.0, 26.0)][direction]
    return Clip(colour, shape, material, int(rng.integers(1, 4)), direction, int(rng.integers(3)),
                rng.uniform(8.5, 9.5), x, speed, rng.uniform(26.0, 33.0), int(rng.integers(6, 15)),
                int(rng.integers(9, 13)))


def cover(shape, dx, dy, radius):
    """Share of a pixel that the body covers; dx, dy: pixel less centre. The edge is one pixel soft."""
    if shape == 0:
        inside = radius - np.sqrt(dx * dx + dy * dy)
    elif shape == 1:
        inside = 0.9 * radius - np.maximum(abs(dx), abs(dy))
    else:  # an upright triangle, as high as wide
        half = np.maximum(1.1 * (dy + radius) / 2, 0)
        inside = np.minimum((half - abs(dx)) * 0.876, radius - abs(dy))
    return np.clip(inside + 0.5, 0, 1)


def pictures(clip, begin=0, count=PICTURES, scale=1):
    """Pictures begin … begin+count−1: [count, SIZE·scale, SIZE·scale, 3] f32."""
    size = SIZE * scale
    t = (begin + np.arange(count)) / FPS
    reach = 0.9 if clip.shape == 1 else 1.0  # centre to ground at rest, in radii
    x = (clip.x + clip.speed * t) * scale
    y = (GROUND - reach * clip.radius - clip.height_at(t)) * scale
    grid = np.arange(size, dtype=np.float32) + 0.5
    floor = np.clip(grid - GROUND * scale + 0.5, 0, 1)[:, None, None]
    back = WALL[clip.place] * (1 - floor) + FLOOR[clip.place] * floor
    dx = grid[None, None, :] - x[:, None, None].astype(np.float32)
    dy = grid[None, :, None] - y[:, None, None].astype(np.float32)
    a = cover(clip.shape, dx, dy, np.float32(clip.radius * scale))[..., None].astype(np.float32)
    return back[None] * (1 - a) + RGB[clip.colour] * a


def sound(clip, latents=PICTURES):
    """The clip's sound, [2048·latents] f32 at 51,200 Hz."""
    t = np.arange(latents * 2048) / RATE
    wave = np.zeros(len(t))
    for at, level in zip(clip.impacts(), clip.levels()):
        s = t[int(np.ceil(at * RATE)):] - at
        ring = sum(share * np.sin(2 * np.pi * f * s) for f, share in PARTIALS[clip.material])
        wave[len(t) - len(s):] += 0.35 * level * np.exp(-s / DECAY[clip.material]) * ring * np.minimum(s / 5e-4, 1)
    return wave.astype(np.float32)
