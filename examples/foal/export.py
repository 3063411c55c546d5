"""Writes what training left in --work as a model folder in the published layout and names."""
import json
import shutil
import subprocess
from pathlib import Path

import torch
from safetensors.torch import save_file

from encode import trained
from train_dit import network
from train_text import Reader
from training import arguments, settings


def write_json(path, content):
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def packed(path):
    """The file as .zst, which the loader takes in its place."""
    subprocess.run(["zstd", "--ultra", "-22", "-q", "-f", "--rm", str(path)], check=True)


def write_sharded(folder, state, pack):
    """One shard and its index."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "model-00001-of-00001.safetensors"
    for old in folder.glob("model-*"):
        old.unlink()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / name, metadata={"format": "pt"})
    total = sum(v.numel() * v.element_size() for v in state.values())
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": {k: name for k in state}})
    if pack:
        packed(folder / name)


def transformer_state(variant, options):
    model = network(variant)
    model.load_state_dict(torch.load(options.work / f"{variant}.pt", weights_only=False)["ema"])
    state, last = model.state_dict(), len(model.block.layers) - 1
    # The last layer's text rows are dropped: what only makes them need not be kept.
    for name in ("attention.linear_proj", "mlp.up_gate_proj", "mlp.down_proj"):
        w = state[f"block.layers.{last}.{name}.weight"]
        w[len(w) // 3 * 2 :] = 0
    linear = ("linear_qkv.weight", "linear_proj.weight", "up_gate_proj.weight", "down_proj.weight")
    return {k: v.bfloat16() if k.endswith(linear) else v for k, v in state.items()}


def main():
    p = arguments(__doc__, 0)
    p.add_argument("--out", type=Path, required=True)
    options = p.parse_args()
    out, c = options.out, settings()
    out.mkdir(parents=True, exist_ok=True)
    (wan, turbo), oobleck = trained(options)
    torch.save(wan.state_dict(), out / "Wan2.2_VAE.pth")
    (out / "turbo_vae").mkdir(exist_ok=True)
    torch.save({"ema_state_dict": {"module." + k: v for k, v in turbo.state_dict().items()}},
               out / "turbo_vae" / "checkpoint-340000.ckpt")
    write_json(out / "turbo_vae" / "TurboV3-Wan22-TinyShallow_7_7.json", c["turbo"])
    audio = out / "stable-audio-open-1.0"
    audio.mkdir(exist_ok=True)
    save_file({"pretransform.model." + k: v.contiguous() for k, v in oobleck.state_dict().items()},
              audio / "model.safetensors", metadata={"format": "pt"})
    write_json(audio / "model_config.json", c["audio"])
    text = out / "t5gemma-9b-9b-ul2"
    reader = Reader(c["text"]["encoder"])
    reader.load_state_dict(torch.load(options.work / "text.pt", weights_only=False)["ema"])
    write_sharded(text, {"model.encoder." + k: v.bfloat16() for k, v in reader.encoder.state_dict().items()}, False)
    write_json(text / "config.json", c["text"])
    write_json(text / "tokenizer_config.json", {"add_bos_token": False, "add_eos_token": False})
    shutil.copy(options.work / "tokenizer.model", text / "tokenizer.model")
    for variant in c["variants"]:
        if (options.work / f"{variant}.pt").exists():
            write_sharded(out / variant, transformer_state(variant, options), pack=True)
    shutil.copy(Path(__file__).with_name("foal.yaml"), out / "gallop.yaml")
    print(out, sum(f.stat().st_size for f in out.rglob("*") if f.is_file()), "bytes")


if __name__ == "__main__":
    main()
