"""Makes checkpoint/ and the cases of this folder: a tiny random T5Gemma and hidden states of its encoder.

The network is transformers' own T5Gemma; version 4.56.0 is the one that daVinci-MagiHuman pins, and matters:
its SDPA path drops the soft cap without a word, and its sliding window is |i - j| < window. As in the published
checkpoint, the weights are bf16 in shards with an index, the decoder lies beside the encoder, and the
embedding has a few more rows than the config's vocabulary (1400, that of configs/models/tiny-tokenizer.model).
Weights are larger than a real initialisation's and norm weights are not zero, so that the soft cap, the window,
the norms and the scale all show in the output.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==4.56.0 safetensors==0.8.0
    venv/bin/python tests/golden/text/make.py

Each case: `ids` I64 [L] -> `text_embedding` F32 [L, D]. Metadata: `precision` fp32 or bf16; `soft_cap` 0 (attention
through SDPA) or 1 (eager); `fp16_trip` 1 when the hidden states went through half precision at the end, as
the reference's do before they are handed to the DiT. A second run gives the same tensors; the order of the
metadata in the headers may differ.
"""
import pathlib
import shutil

import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SEED = 20260
VOCABULARY, EXTRA_ROWS, WIDTH, LAYERS, WINDOW = 1400, 8, 64, 4, 8
CASES = {  # name: (L, dtype, soft cap, fp16 trip)
    "fp32-1": (1, torch.float32, False, False), "fp32-5": (5, torch.float32, False, False),
    "fp32-40": (40, torch.float32, False, False), "fp32-40-soft-cap": (40, torch.float32, True, False),
    "fp32-40-half": (40, torch.float32, False, True), "bf16-1": (1, torch.bfloat16, False, False),
    "bf16-5": (5, torch.bfloat16, False, False), "bf16-40": (40, torch.bfloat16, False, False),
}


def build() -> transformers.T5GemmaForConditionalGeneration:
    common = dict(vocab_size=VOCABULARY, head_dim=16, query_pre_attn_scalar=24, sliding_window=WINDOW,
                  attn_logit_softcapping=50.0)
    config = transformers.T5GemmaConfig(
        encoder=dict(common, hidden_size=WIDTH, intermediate_size=128, num_hidden_layers=LAYERS,
                     num_attention_heads=4, num_key_value_heads=2),
        decoder=dict(common, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
                     num_key_value_heads=1, cross_attention_hidden_size=WIDTH),
        vocab_size=VOCABULARY)
    model = transformers.T5GemmaForConditionalGeneration(config)
    encoder = model.model.encoder
    encoder.embed_tokens = torch.nn.Embedding(VOCABULARY + EXTRA_ROWS, WIDTH, 0)
    generator = torch.Generator().manual_seed(SEED)
    for name, weight in sorted(model.named_parameters()):
        if "norm" in name:
            scale = 0.3
        elif "q_proj" in name or "k_proj" in name:
            scale = 1.2 * weight.shape[1] ** -0.5
        elif "embed_tokens" in name:
            scale = 0.15
        else:
            scale = weight.shape[1] ** -0.5
        weight.data = torch.randn(weight.shape, generator=generator) * scale
    return model.to(torch.bfloat16)


def load(folder: pathlib.Path, dtype: torch.dtype, attention: str) -> torch.nn.Module:
    """As the reference does: the encoder alone, out of the folder of the whole model."""
    config = transformers.T5GemmaConfig.from_pretrained(folder)
    config.is_encoder_decoder = False
    config.encoder.vocab_size += EXTRA_ROWS
    model, info = transformers.T5GemmaEncoderModel.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation=attention, output_loading_info=True)
    encoder = model.encoder
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    assert encoder.config._attn_implementation == attention and encoder.embed_tokens.weight.dtype == dtype
    assert encoder.rotary_emb.inv_freq.dtype == torch.float32
    return model.eval()


def main() -> None:
    folder = HERE / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    build().save_pretrained(folder, max_shard_size="400KB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(5, VOCABULARY, (40,), generator=torch.Generator().manual_seed(SEED + 1))
    for name, (length, dtype, soft_cap, half) in CASES.items():
        encoder = load(folder, dtype, "eager" if soft_cap else "sdpa")
        with torch.no_grad():
            hidden = encoder(input_ids=ids[None, :length], attention_mask=torch.ones(1, length)).last_hidden_state[0]
        if half:
            hidden = hidden.half()
        safetensors.torch.save_file(
            {"ids": ids[:length], "text_embedding": hidden.float().contiguous()}, HERE / f"{name}.safetensors",
            metadata={"precision": "fp32" if dtype == torch.float32 else "bf16", "soft_cap": str(int(soft_cap)),
                      "fp16_trip": str(int(half)), "source": f"transformers {transformers.__version__}, "
                      f"torch {torch.__version__}, tests/golden/text/make.py, seed {SEED}"})
        print(name, tuple(hidden.shape), f"largest {hidden.abs().max():.4f}")


if __name__ == "__main__":
    main()
