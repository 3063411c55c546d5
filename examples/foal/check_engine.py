"""Compares every network, and whole sampling runs, of the engine with PyTorch on an exported model.

check_engine.py GALLOP MODEL: both compute in fp32 from the same files and the same noise; prints one line each.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece
import torch
import yaml
from safetensors.torch import load_file, save_file

import prompts
import restore
import sampling

GALLOP, MODEL = sys.argv[1], Path(sys.argv[2])
SETTINGS = yaml.safe_load((MODEL / "gallop.yaml").read_text())
WORK = Path(tempfile.mkdtemp())
TEXTS = ["A red rubber ball bounces twice, moving left, at night.",
         "At dusk, a blue cube made of wood bounces once, staying in place.\n\nDialogue:\n<No dialogue>\n\n"
         "Background Sound:\n<One thud of wood>", "黄昏,一个红色的橡胶球向左弹跳两次。"]


def probe(what, component, weights, arch, tensors, expected, metadata=None):
    """Relative L2 errors of what the engine makes of these tensors."""
    case, out = WORK / "case.safetensors", WORK / "out.safetensors"
    save_file({k: v.contiguous() for k, v in tensors.items()}, case,
              metadata={k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()})
    subprocess.run([GALLOP, "probe", component, "--weights", weights, *(["--arch", arch] if arch else []),
                    "--case", case, "--out", out, "--precision", "fp32"], check=True, stdout=subprocess.DEVNULL)
    made = load_file(out)
    for name, want in expected.items():
        error = ((made[name] - want).norm() / want.norm()).item()
        print(f"{what:34} {name:18} {list(want.shape)!s:22} {error:.1e}", flush=True)


@torch.no_grad()
def main():
    torch.manual_seed(5)
    arch = MODEL / "gallop.yaml"
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(MODEL / "t5gemma-9b-9b-ul2/tokenizer.model"))
    encoder = restore.text_encoder(MODEL, SETTINGS)
    features = [encoder(torch.tensor([tokenizer.encode(t)]))[0] for t in [*TEXTS, prompts.NEGATIVE]]
    for text, made in zip(TEXTS, features):
        probe("text " + text[:24].replace("\n", " "), "text", MODEL / "t5gemma-9b-9b-ul2", None, {"unused": torch.zeros(1)},
              {"text_embedding": made}, {"text": text})

    wan = restore.wan_encoder(MODEL, SETTINGS)
    pictures = torch.rand(1, 3, 17, 64, 64) * 2 - 1
    for count in (1, 17):
        probe(f"wan encoder, {count} pictures", "wan-vae-encode", MODEL / "Wan2.2_VAE.pth", arch,
              {"video": pictures[0, :, :count]}, {"latent": wan(pictures[:, :, :count])[0]})
    turbo = restore.turbo_decoder(MODEL, SETTINGS)
    latent = torch.randn(1, 48, 11, 4, 4)
    probe("turbo decoder, 11 latent frames", "turbo-vae", MODEL / "turbo_vae/checkpoint-340000.ckpt", arch,
          {"latent": latent[0]}, {"video": turbo.decode(latent)[0]})
    oobleck = restore.oobleck(MODEL, SETTINGS)
    sound, latent = torch.randn(1, 2, 8 * 2048 + 1000) * 0.1, torch.randn(1, 64, 9)
    probe("sound encoder", "audio-vae-encode", MODEL / "stable-audio-open-1.0", arch, {"encoder_in": sound[0]},
          {"encoder_mean_scale": oobleck.encoder(sound)[0]})
    probe("sound decoder", "audio-vae-decode", MODEL / "stable-audio-open-1.0", arch, {"latent": latent[0]},
          {"waveform": oobleck.decoder(latent)[0]})

    video, audio = torch.randn(1, 48, 11, 4, 4), torch.randn(1, 41, 64)
    text, negative = features[0][None], features[-1][None]
    for variant in SETTINGS["variants"]:
        if not (MODEL / variant).exists():
            continue
        model = restore.transformer(MODEL, variant, SETTINGS)
        keys = ("coords_style", "frame_receptive_field", "local_attn_layers")
        how = {k: model.c[k] for k in keys}
        sr = variant.endswith("_sr")
        x = torch.randn(1, 48, 11, 8, 8) if sr else video
        v, a = model(x, audio, text)
        given = dict(video_latent=x[0], audio_latent=audio[0], text_embedding=text[0])
        probe(f"{variant}, one forward", "dit", MODEL / variant, arch, given, dict(out_video=v[0], out_audio=a[0]), how)
        given = dict(video_noise=video[0], audio_noise=audio[0], text_embedding=text[0])
        if sr:
            noise = torch.randn_like(x), torch.randn_like(audio)
            made = sampling.super_resolution(model, video, audio, text, *noise)
            probe(f"{variant}, 5 steps", "pipeline", MODEL / variant, arch,
                  given | dict(sr_noise=noise[0][0], sr_audio_noise=noise[1][0]), dict(out_video=made[0]), how)
        elif variant == "base":
            made = sampling.base(model, video, audio, text, negative)
            probe("base, 32 steps, guided", "pipeline", MODEL / variant, arch,
                  given | dict(negative_embedding=negative[0]), dict(out_video=made[0][0], out_audio=made[1][0]),
                  how | dict(steps="32", cfg_number="2"))
            image = torch.randn(1, 48, 1, 4, 4)
            made = sampling.base(model, video, audio, text, negative, image=image, audio_fixed=True)
            probe("base, picture and sound given", "pipeline", MODEL / variant, arch,
                  given | dict(negative_embedding=negative[0], image_latent=image[0]),
                  dict(out_video=made[0][0], out_audio=made[1][0]),
                  how | dict(steps="32", cfg_number="2", use_image="1", is_a2v="1"))
        else:
            nv, na = torch.randn(8, *video.shape[1:]), torch.randn(8, *audio.shape[1:])
            made = sampling.base(model, video, audio, text, steps=8,
                                 fresh=lambda what, i: (nv if what == "video" else na)[i : i + 1])
            probe(f"{variant}, 8 steps", "pipeline", MODEL / variant, arch, given | dict(renoise_video=nv, renoise_audio=na),
                  dict(out_video=made[0][0], out_audio=made[1][0]), how | dict(steps="8", cfg_number="1"))


main()
