"""The published samplers, as the engine runs them: guided UniPC, re-noising, and the super-resolution stage."""
import math

import torch
import torch.nn.functional as F


def levels(steps, shift=5.0):
    s = [0.9990000128746033 * (1 - i / steps) for i in range(steps)]
    return [float(torch.tensor(shift * v / (1 + (shift - 1) * v))) for v in s] + [0.0]


class UniPc:
    """Order 2, bh2, prediction of data; the corrector always on."""

    def __init__(self, sigmas):
        self.sigmas, self.predictions, self.corrected, self.order, self.i = sigmas, [], None, 1, 0
        self.lam = [math.log1p(-s) - math.log(s) if s > 0 else math.inf for s in sigmas]

    def step(self, v, x):
        i, lam, sigma = self.i, self.lam, self.sigmas
        m = x - sigma[i] * v
        if i > 0:
            h = lam[i] - lam[i - 1]
            e, alpha = math.expm1(-h), 1 - sigma[i]
            base = sigma[i] / sigma[i - 1] * self.corrected - alpha * e * self.predictions[-1]
            if self.order == 1:
                x = base - 0.5 * alpha * e * (m - self.predictions[-1])
            else:
                r = (lam[i - 2] - lam[i - 1]) / h
                d = (self.predictions[-2] - self.predictions[-1]) / r
                phi1 = e / -h - 1
                phi2 = phi1 / -h - 0.5
                b1, b2 = phi1 / e, 2 * phi2 / e
                rho1 = (b1 - b2) / (1 - r)
                x = base - alpha * e * (rho1 * d + (b1 - rho1) * (m - self.predictions[-1]))
        self.corrected = x
        n = len(sigma) - 1
        self.order = min(2, n - i, i + 1)
        if sigma[i + 1] == 0:
            made = m
        else:
            h = lam[i + 1] - lam[i]
            e, alpha = math.expm1(-h), 1 - sigma[i + 1]
            made = sigma[i + 1] / sigma[i] * self.corrected - alpha * e * m
            if self.order == 2:
                r = (lam[i - 1] - lam[i]) / h
                made = made - 0.5 * alpha * e * (self.predictions[-1] - m) / r
        self.predictions = [*self.predictions[-1:], m]
        self.i += 1
        return made


@torch.no_grad()
def base(model, video, audio, text, negative=None, steps=32, shift=5.0, guidance=(5.0, 2.0, 5.0), until=500,
         image=None, audio_fixed=False, fresh=None, watch=None):
    """negative: two passes with UniPC, guidance of the picture early and late, and of the sound; none: re-noising,
    with `fresh(modality, step)` for the noise. image: [B, 48, 1, Y, X], the clean first frame. `watch(step, video,
    audio)` sees what the network is shown."""
    sigma = levels(steps, shift)
    solvers = UniPc(sigma), UniPc(sigma)
    for i in range(steps):
        if image is not None:
            video = torch.cat([image, video[:, :, 1:]], 2)
        if watch:
            watch(i, video, audio)
        v, a = model(video, audio, text)
        if negative is not None:
            nv, na = model(video, audio, negative)
            g = guidance[0] if int(1000 * sigma[i]) > until else guidance[1]
            v, a = nv + g * (v - nv), na + guidance[2] * (a - na)
            video = solvers[0].step(v, video)
            audio = audio if audio_fixed else solvers[1].step(a, audio)
        else:
            s, n = sigma[i], sigma[i + 1]
            video = n * fresh("video", i) + (1 - n) * (video - s * v)
            if not audio_fixed:
                audio = n * fresh("audio", i) + (1 - n) * (audio - s * a)
    if image is not None:
        video = torch.cat([image, video[:, :, 1:]], 2)
    return video, audio


SR_SIGNAL, SR_NOISE, SR_SOUND_NOISE = 0.8389104008674622, 0.5442695617675781, 0.7


def enlarge(video):
    b, c, t, y, x = video.shape
    wide = F.interpolate(video.transpose(1, 2).reshape(b * t, c, y, x), scale_factor=2, mode="bilinear",
                         align_corners=True)
    return wide.view(b, t, c, 2 * y, 2 * x).transpose(1, 2)


@torch.no_grad()
def super_resolution(model, video, audio, text, video_noise, audio_noise, steps=5, shift=5.0, image=None):
    x = SR_SIGNAL * enlarge(video) + SR_NOISE * video_noise
    sound = SR_SOUND_NOISE * audio_noise + (1 - SR_SOUND_NOISE) * audio
    solver = UniPc(levels(steps, shift))
    for _ in range(steps):
        if image is not None:
            x = torch.cat([image, x[:, :, 1:]], 2)
        x = solver.step(model(x, sound, text)[0], x)
    return x if image is None else torch.cat([image, x[:, :, 1:]], 2)
