"""Measures what a clip shows and sounds like. Pictures [N, Y, X, 3] u8, sound [S] f32 mono at 44,100 Hz."""
from dataclasses import dataclass, field

import numpy as np

import clips

SOUND_RATE = 44100
HOP = 220  # samples between two looks at the loudness, 5 ms


@dataclass
class Seen:
    colour: int = -1
    shape: int = -1
    material: int = -1
    direction: int = -1
    place: int = -1
    impacts: list = field(default_factory=list)  # seconds, seen
    onsets: list = field(default_factory=list)  # seconds, heard


def body_of(pictures):
    """How much of each pixel is body, 0 … 1: walls and floors are grey, bodies are not."""
    p = pictures.astype(np.float32) / 255
    saturation = p.max(-1) - p.min(-1)
    return np.clip((saturation - 0.25) / 0.3, 0, 1)


def shape_of(body):
    """Of the pictures' mean body, put over one another by its centre: which shape covers it best."""
    n, size, _ = body.shape
    scale = size / clips.SIZE
    grid = np.arange(size) + 0.5
    reach = int(14 * scale)
    stack = []
    for b in body:
        area = b.sum()
        if area < 60 * scale**2:
            continue
        x, y = (b.sum(0) * grid).sum() / area, (b.sum(1) * grid).sum() / area
        if reach < x < size - reach and reach < y < size - 2:
            c, r = int(x), int(y)
            part = np.zeros((2 * reach, 2 * reach), np.float32)
            rows = slice(max(r - reach, 0), min(r + reach, size))
            part[rows.start - r + reach : rows.stop - r + reach] = b[rows, c - reach : c + reach]
            stack.append((part, x - c, y - r))
    if not stack:
        return -1
    best, shape = -1.0, -1
    g = np.arange(2 * reach) + 0.5 - reach
    parts = np.stack([s[0] for s in stack])
    x, y = (np.array([s[i] for s in stack])[:, None, None] for i in (1, 2))
    for kind in range(3):
        # A pyramid's centre of mass lies a third of its height from the ground.
        for radius in np.arange(6.5, 10.01, 0.5) * scale:
            lift = radius / 3 if kind == 2 else 0.0
            model = clips.cover(kind, g[None, None, :] - x, g[None, :, None] - y + lift, radius)
            overlap = np.minimum(model, parts).sum() / np.maximum(model, parts).sum()
            if overlap > best:
                best, shape = overlap, kind
    return shape


def at_rest(heights, count=8):
    """Indices of the pictures in which it rises and falls least: what moves is blurred."""
    return np.argsort(abs(np.gradient(heights)), kind="stable")[:count]


def impacts_of(heights, scale):
    """Times of landing, from the height of each picture: high in the air, then low and no longer falling."""
    found, peak = [], 0.0
    gravity = clips.GRAVITY / clips.FPS**2 * scale
    for i, h in enumerate(heights):
        peak = max(peak, h)
        falling = i + 1 < len(heights) and heights[i + 1] < h - 0.3 * scale
        if peak > 6.5 * scale and h < 0.4 * peak and not falling:
            # When it passed half its height, and a free fall from there; the landing itself is often blurred.
            j = i
            while j > 0 and heights[j - 1] < peak / 2:
                j -= 1
            passed = j - (peak / 2 - heights[j]) / max(heights[j - 1] - heights[j], 1e-3) if j > 0 else 0.0
            found.append((passed + np.sqrt(2 * peak / gravity) - np.sqrt(peak / gravity)) / clips.FPS)
            peak = h
    return found


def onsets_of(sound):
    """Times at which the loudness leaps up."""
    count = len(sound) // HOP
    power = np.square(sound[: count * HOP].reshape(count, HOP)).mean(1)
    level = np.sqrt(power)
    loudest = level.max()
    found = []
    if loudest < 0.01:
        return found
    for i in range(1, count):
        before = level[max(i - 3, 0) : i].mean()
        if level[i] > 0.35 * loudest and level[i] > 1.8 * before and (not found or i - found[-1] > 24):
            found.append(i)
    return [i * HOP / SOUND_RATE for i in found]


def material_of(sound, onsets):
    """Whose partials carry the most power behind the onsets."""
    score = np.zeros(3)
    for at in onsets:
        piece = sound[int(at * SOUND_RATE) : int(at * SOUND_RATE) + 2048]
        if len(piece) < 2048:
            continue
        power = np.abs(np.fft.rfft(piece * np.hanning(2048))) ** 2
        hertz = np.fft.rfftfreq(2048, 1 / SOUND_RATE)
        for kind, partials in enumerate(clips.PARTIALS):
            score[kind] += power[abs(hertz - partials[0][0]) < 50].sum() / power.sum()
    return int(score.argmax()) if score.max() > 0 else -1


def look(pictures, sound):
    seen = Seen()
    size = pictures.shape[1]
    scale = size / clips.SIZE
    body = body_of(pictures)
    area = body.sum((1, 2))
    shown = area > 30 * scale**2
    if shown.sum() >= 5:
        weight = body[shown][..., None] ** 2
        colour = (pictures[shown] / 255.0 * weight).sum((0, 1, 2)) / weight.sum()
        seen.colour = int(np.square(clips.RGB - colour).sum(1).argmin())
        grid = np.arange(size) + 0.5
        index = np.flatnonzero(shown)
        y = np.interp(np.arange(len(pictures)), index, (body[shown].sum(2) * grid).sum(1) / area[shown])
        x = np.interp(np.arange(len(pictures)), index, (body[shown].sum(1) * grid).sum(1) / area[shown])
        late = index[-16:]
        seen.shape = shape_of(body[late[at_rest(y[late])]])
        seen.impacts = impacts_of(np.percentile(y, 95) - y, scale)
        moved = (x[-5:].mean() - x[:5].mean()) / scale
        seen.direction = 0 if moved < -8 else 2 if moved > 8 else 1
    corner = int(8 * scale)
    wall = pictures[:, :corner, :corner].reshape(-1, 3).mean(0) / 255
    seen.place = int(np.square(clips.WALL - wall).sum(1).argmin())
    seen.onsets = onsets_of(sound)
    seen.material = material_of(sound, seen.onsets)
    return seen


def words(thing):
    """A clip's truth, or what was measured of one, in words."""
    def name(names, i):
        return names[i] if i >= 0 else "?"

    count = thing.bounces if hasattr(thing, "bounces") else f"{len(thing.impacts)} (heard {len(thing.onsets)})"
    return (f"{name(clips.COLOURS, thing.colour)} {name(clips.MATERIALS, thing.material)} "
            f"{name(clips.SHAPES, thing.shape)}, {name(clips.DIRECTIONS, thing.direction)}, {count}")


def similarity(a, b):
    """SSIM of two pictures [Y, X, 3] u8, in windows of 8x8."""
    def windows(x):
        x = x.astype(np.float64).mean(-1)
        return np.lib.stride_tricks.sliding_window_view(x, (8, 8))[::2, ::2]

    a, b = windows(a), windows(b)
    ma, mb = a.mean((2, 3)), b.mean((2, 3))
    va, vb = a.var((2, 3)), b.var((2, 3))
    both = (a * b).mean((2, 3)) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


MEASURES = ["colour", "shape", "material", "direction", "place", "heard", "seen", "in sync"]


class Score:
    """Sums over clips; shares of clips that are right, and of sounds within one picture of an impact that is seen."""

    def __init__(self):
        self.clips, self.right, self.sounds, self.near = 0, dict.fromkeys(MEASURES, 0), 0, 0

    def add(self, clip, seen, onsets=None):
        """onsets: instead of the clip's own, for the control."""
        self.clips += 1
        for key in ("colour", "shape", "material", "direction", "place"):
            self.right[key] += getattr(seen, key) == getattr(clip, key)
        self.right["heard"] += len(seen.onsets) == clip.bounces
        self.right["seen"] += len(seen.impacts) == clip.bounces
        for at in seen.onsets if onsets is None else onsets:
            self.sounds += 1
            self.near += any(abs(at - t) <= 1 / clips.FPS for t in seen.impacts)

    def shares(self):
        made = {k: v / max(self.clips, 1) for k, v in self.right.items()}
        made["in sync"] = self.near / max(self.sounds, 1)
        return made


def swapped(pairs):
    """For each clip the onsets of another with as many bounces: [(clip, seen)] → onsets."""
    made = []
    for i, (clip, _) in enumerate(pairs):
        for step in range(1, len(pairs)):
            other, heard = pairs[(i + step) % len(pairs)]
            if other.bounces == clip.bounces:
                made.append(heard.onsets)
                break
        else:
            made.append([])
    return made


def table(rows):
    """rows: [(name, Score)] as Markdown."""
    lines = ["| | clips | " + " | ".join(MEASURES) + " |", "| --- | ---: |" + " ---: |" * len(MEASURES)]
    for name, score in rows:
        shares = score.shares()
        lines.append(f"| {name} | {score.clips} | " + " | ".join(f"{100 * shares[m]:.1f}" for m in MEASURES) + " |")
    return "\n".join(lines)
