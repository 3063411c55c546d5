"""Makes configs/models/tiny-tokenizer.model and cases.json.

The model is a small SentencePiece BPE trained on corpus.txt and the shipped negative prompt (which then fits into
640 tokens) with the settings of Gemma's tokenizer (byte fallback, no dummy prefix, identity normalisation, split
digits) and its layout of special pieces: pad, eos, bos, unk, mask, unused slots, turns, runs of 1-31 newlines,
runs of 2-31 spaces, HTML tags, and runs of 2-31 tabs.

cases.json holds tokenisations by the sentencepiece wheel, the ids and the byte span of each piece.

added_cases.json holds ids by transformers' GemmaTokenizerFast, made of the same model with two more added tokens,
BOS and EOS; tokenizer_config.json is what it saves. Unlike SentencePiece it matches control words in the text. For
all texts without such words the script checks that both agree when BOS and EOS are off.

    python3 -m venv venv && venv/bin/pip install sentencepiece==0.2.0 transformers==4.56.0 protobuf==7.36.0
    venv/bin/python tests/golden/tokenizer/make.py

Training has no random part; the same wheel gives the same files.
"""
import io
import json
import pathlib
import tempfile

import sentencepiece as spm
import transformers

HERE = pathlib.Path(__file__).parent
CONFIGS = HERE.parents[2] / "configs"
MODEL = CONFIGS / "models" / "tiny-tokenizer.model"
NEGATIVE = (CONFIGS / "negative_prompt.txt").read_text()

HTML = ["table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6",
        "blockquote", "sub", "sup", "strong", "em", "b", "i", "u", "s", "code"]
SYMBOLS = (["<mask>", "<2mass>", "[@BOS@]"] + [f"<unused{i}>" for i in range(8)]
           + ["<start_of_turn>", "<end_of_turn>"] + ["\n" * n for n in range(1, 32)]
           + ["▁" * n for n in range(2, 32)] + [f"<{t}>" for t in HTML] + [f"</{t}>" for t in HTML]
           + ["\t" * n for n in range(2, 32)])

PROMPT = """A young woman with short dark hair stands in a bright kitchen and looks straight into the camera. \
She speaks in a calm and friendly voice while the camera stays static.

Dialogue:
<a young woman, English>: "Good morning! Would you like a cup of coffee?"

Background Sound:
<a quiet room, a kettle, birds outside>"""

CHINESE = """一位年轻的女人站在厨房里。

Dialogue:
<a young woman, Chinese>: "早 上 好 ! 你 想 喝 咖 啡 吗 ?"

Background Sound:
<No prominent background sound>"""

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\t \t", " \n ", "\r\n", "\r\n\r\n", "a", " a", "a ",
    " a ", "  a  b  ", "hello", "hello world", "Hello, world!", "hello  world", "hello   world", "hello\tworld",
    "hello\t\tworld", "hello\nworld", "hello\n\nworld", "hello\n\n\n\nworld", "\n" * 31, "\n" * 32, "\n" * 40 + "x",
    " " * 31, " " * 32, "x" + " " * 40 + "y", "\t" * 31, "\t" * 33, "▁", "▁▁", "a▁b", " ▁ ", "a ▁b", "0", "42", "1920x1088",
    "3.14159", "1,234,567.89", "In 2024 there were 365 days", "The quick brown fox jumps over the lazy dog.",
    "the the the the the", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababababababab", "UPPER lower MiXeD", "don't can't won't",
    "state-of-the-art", "C++20 & C#", "if (x == 0) { return y[i]; }", "https://example.org/a?b=c#d", "user@example.org",
    "Grüße aus München, Straße 5", "à côté d'elle, très gentil", "¡Buenos días! ¿Quiere usted un café?",
    "Доброе утро! Хотите кофе?", "早上好!你想喝咖啡还是喝茶?", "早 上 好", "おはようございます。コーヒーはいかがですか。",
    "안녕하세요! 커피를 드시겠어요?", "صباح الخير! هل تريد قهوة؟", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Γειά σου Κόσμε",
    "😀", "a😀b", "👩‍👩‍👧‍👦 family", "🇩🇪🇯🇵", "é", "e\u0301", "ﬁ ligature", "ℌ𝔢𝔩𝔩𝔬", "\u00a0nbsp\u00a0", "\u200bzero\u200dwidth", "\u3000全角",
    "\ufeffbom", "\u0001\u0002\u007f", "\ufffd", "<table><tr><td>one</td></tr></table>", "<b>bold</b> <i>it</i>",
    "<p>not a tag of ours</p>", "<h1>Title</h1>\n\n<code>x</code>", "< table >", "<tabl", "<start_of_turn>user\nhi<end_of_turn>\n",
    "<start_of_turn", "<unused3>", "<unused99>", "<mask>", "<2mass>[@BOS@]", "<pad>", "<eos>", "<bos>", "<unk>", "<0x41>",
    "a<eos>b", "Dialogue:\n<a man, German>: \"Guten Morgen\"", PROMPT, CHINESE, PROMPT + "\n\n\n\n" + CHINESE,
    " ".join(PROMPT.split()), "word " * 200, NEGATIVE,
]


CONTROL_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>"]
ADDED_TEXTS = CONTROL_WORDS + [
    "", "a", "a<eos>b", " <bos> ", "<eos><eos>", "<eo", "<extra>", "x<extra>y", "<extra>s", "<extra>sx <extra> x", "<<extra>>",
    "word <extra> word", "\n\n<extra>\n", "  <extra>  ", "<table><extra></table>", "▁▁<extra>", " ▁▁", "<start_of_turn>user\n<pad>",
    PROMPT]


def train() -> bytes:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter((HERE / "corpus.txt").read_text().splitlines() + [NEGATIVE] * 4), model_writer=model,
        model_type="bpe",
        vocab_size=1400, character_coverage=0.99, byte_fallback=True, split_digits=True, add_dummy_prefix=False,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        unk_piece="<unk>", user_defined_symbols=SYMBOLS, num_threads=1, minloglevel=2)
    return model.getvalue()


def case(tokenizer: spm.SentencePieceProcessor, text: str) -> dict:
    """Spans come as counts of characters; ours are bytes of UTF-8."""
    pieces = tokenizer.encode(text, out_type="immutable_proto").pieces
    byte = [len(text[:i].encode()) for i in range(len(text) + 1)]
    return {"text": text, "ids": [p.id for p in pieces], "begin": [byte[p.begin] for p in pieces],
            "end": [byte[p.end] for p in pieces]}


def added_cases(tokenizer: spm.SentencePieceProcessor) -> list[dict]:
    plain = transformers.GemmaTokenizerFast(vocab_file=str(MODEL), add_bos_token=False, add_eos_token=False)
    for text in TEXTS:
        if not any(word in text for word in CONTROL_WORDS):
            assert plain(text).input_ids == tokenizer.encode(text), text
    fast = transformers.GemmaTokenizerFast(vocab_file=str(MODEL), add_bos_token=True, add_eos_token=True)
    fast.add_tokens([transformers.AddedToken(t, normalized=False) for t in ("<extra>", "<extra>s")])
    with tempfile.TemporaryDirectory() as folder:
        fast.save_pretrained(folder)
        saved = pathlib.Path(folder) / "tokenizer_config.json"
        (HERE / "tokenizer_config.json").write_text(saved.read_text())
    return [{"text": t, "ids": fast(t).input_ids} for t in ADDED_TEXTS]


def write(name: str, document: dict) -> None:
    lines = json.dumps(document, ensure_ascii=True, separators=(",", ":")).replace('{"text"', '\n{"text"')
    (HERE / name).write_text(lines + "\n")


def main() -> None:
    MODEL.write_bytes(train())
    tokenizer = spm.SentencePieceProcessor(model_file=str(MODEL))
    versions = {"source": "tests/golden/tokenizer/make.py", "sentencepiece": spm.__version__}
    write("cases.json", {**versions, "pieces": tokenizer.get_piece_size(), "cases": [case(tokenizer, t) for t in TEXTS]})
    write("added_cases.json", {**versions, "transformers": transformers.__version__, "cases": added_cases(tokenizer)})
    print(f"{MODEL.name}: {MODEL.stat().st_size} bytes, {tokenizer.get_piece_size()} pieces; {len(TEXTS)} cases")


if __name__ == "__main__":
    main()
