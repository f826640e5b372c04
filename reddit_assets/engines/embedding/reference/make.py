"""Make the committed reference again.

``python -m reddit_assets.engines.embedding.reference.make POSTS``.

POSTS is a folder of chain files with public-domain posts; some excerpts of all lengths are taken
from them, beside the texts written here. Needs sentence-transformers; it, and nothing of this
project, computes the vectors and counts the tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reddit_assets.engines.embedding.model import find_model
from reddit_assets.engines.embedding.reference import GOLDEN

__all__ = ["main"]

MODEL = "all-MiniLM-L6-v2"
EXCERPTS = 72

WRITTEN = [
    "",
    " ",
    "\n\t \r\n",
    "a",
    "A",
    "?",
    "...",
    "12345 67,890.12 0x1F 1e-9",
    "Hello, world!",
    "hello world",
    "HELLO WORLD",
    "The quick brown fox jumps over the lazy dog.",
    "[deleted]",
    "[removed]",
    "Edit: typo. Edit 2: thanks for the gold, kind stranger!",
    "https://www.reddit.com/r/AskHistorians/comments/abc123/what_is_this/?utm_source=share",
    "r/AskHistorians u/someone /s TL;DR: it depends.",
    "> quoted text\n\nI disagree with that.\n\n* first\n* second\n\n**bold** _italic_ `code`",
    "def f(x):\n    return {k: v for k, v in x.items() if v is not None}\n",
    "😀",
    "😀😃😄😁 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 great news 🎉🎉🎉",
    "Crème brûlée, naïve façade, Zürich, señor, smörgåsbord",
    "Cre\u0300me bru\u0302le\u0301e in decomposed form: e\u0301 a\u030a o\u0308",
    "Z\u0351\u036b\u0343a\u0335\u0321l\u0334\u0322g\u0335o\u0336 t\u0337e\u0338x\u0336t\u0335",
    "Съешь ещё этих мягких французских булок, да выпей чаю",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "נוסח בעברית מימין לשמאל, עם English באמצע",
    "هذا نص عربي من اليمين إلى اليسار مع أرقام ١٢٣",
    "日本語のテキストです。漢字とかなが混ざっています。",
    "中文文本没有空格但是有标点符号，例如逗号。",
    "한국어 문장도 하나 넣어 봅시다.",
    "हिन्दी में एक वाक्य और ๆ ภาษาไทยไม่มีวรรค",
    "zero\u200bwidth\u200djoiner\u2060word \ufeffbom \u00a0nbsp\u3000ideographic",
    "null\x00inside and \x07control\x1b[31m characters\x7f",
    "replacement \ufffd character and \U0010ffff noncharacter",
    "ﬁ ﬂ ligatures ① ② Ⅳ ½ ™ ℃ Ａｆｕｌｌｗｉｄｔｈ",
    "word " * 253,
    "word " * 254,
    "word " * 255,
    "word " * 400,
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis " * 30,
    "a.b-c/d_e " * 60,
    "!?" * 200,
    "字" * 300,
    "😀" * 300,
]


def main(posts: Path) -> Path:
    """Write the reference beside this module and give its path."""
    import sentence_transformers
    import torch

    files = sorted(posts.glob("*/*/*.parquet"))
    bodies = pa.concat_tables([pq.read_table(file, columns=["body"]) for file in files])["body"]
    random = np.random.default_rng(0)
    rows = random.choice(len(bodies), EXCERPTS, replace=False)
    sizes = np.geomspace(20, 1_100, EXCERPTS).astype(int)
    excerpts = [bodies[int(r)].as_py()[:size] for r, size in zip(rows, sizes, strict=True)]
    texts = WRITTEN + excerpts
    spec = find_model(MODEL, Path("models"))
    model = sentence_transformers.SentenceTransformer(str(spec.weights_dir), device="cpu")
    vectors = model.encode(texts, batch_size=1, convert_to_numpy=True).astype(np.float32)
    tokens = [int(model.tokenize([text])["attention_mask"].sum()) for text in texts]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table(
        {"text": pa.array(texts, pa.string()), "tokens": pa.array(tokens), "vector": flat}
    ).replace_schema_metadata(
        {
            "fingerprint": spec.fingerprint,
            "made_by": f"sentence-transformers {sentence_transformers.__version__}, "
            f"torch {torch.__version__}, fp32",
        }
    )
    target = Path(__file__).with_name(GOLDEN)
    pq.write_table(
        table,
        target,
        compression="zstd",
        use_byte_stream_split=["vector.list.element"],
        use_dictionary=False,
    )
    return target


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
