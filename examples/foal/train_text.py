"""Trains the tokenizer and the text encoder: it learns to tell what a prompt asks for, and to fill in hidden words."""
import io

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from torch import nn

import clips
import networks
import prompts
from training import Run, arguments, settings

ANSWERS = dict(colour=6, shape=3, material=3, bounces=4, direction=3, place=3)
UNKNOWN = 3


def train_tokenizer(path, size):
    rng = np.random.default_rng(7)
    texts = [prompts.prompt(clips.draw_clip(rng), rng) for _ in range(6000)] + [prompts.NEGATIVE] * 100
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(t.replace("\n\n", " ") for t in texts), model_writer=model, vocab_size=size,
        model_type="bpe", byte_fallback=True, add_dummy_prefix=False, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=1.0, pad_id=0, eos_id=1, bos_id=2, unk_id=UNKNOWN,
        hard_vocab_limit=False, num_threads=1, user_defined_symbols=["\n", "\n\n"], minloglevel=1)
    path.write_bytes(model.getvalue())


class Reader(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.encoder = networks.TextEncoder(c)
        self.answers = nn.ModuleDict({k: nn.Linear(c["hidden_size"], n) for k, n in ANSWERS.items()})
        self.words = nn.Linear(c["hidden_size"], c["vocab_size"])


def main():
    options = arguments(__doc__, 4).parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    c = settings()["text"]["encoder"]
    path = options.work / "tokenizer.model"
    if not (options.resume and path.exists()):
        train_tokenizer(path, c["vocab_size"])
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    print("pieces", tokenizer.get_piece_size(), tokenizer.encode(prompts.NEGATIVE, out_type=str), flush=True)
    model = Reader(c)
    run = Run("text", options, model, rate=2e-3)
    while run.going():
        made = [clips.draw_clip(run.rng) for _ in range(48)]
        rows = [torch.tensor(tokenizer.encode(prompts.prompt(m, run.rng))) for m in made]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        there = ids != 0
        hidden = there & (torch.rand(ids.shape) < 0.15)
        x = model.encoder(ids.masked_fill(hidden, UNKNOWN), there[:, None, None, :])
        fill = F.cross_entropy(model.words(x[hidden]), ids[hidden])
        x = model.encoder(ids, there[:, None, None, :])
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        loss, right = 0.3 * fill, []
        for key, head in model.answers.items():
            truth = torch.tensor([getattr(m, key) for m in made])
            guess = head(mean)
            loss = loss + F.cross_entropy(guess, truth)
            right.append((guess.argmax(1) == truth).float().mean())
        run.descend(loss, fill=fill.detach(), right=sum(right) / len(right))


if __name__ == "__main__":
    main()
