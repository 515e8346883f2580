"""A cross-encoder made on the spot: random weights, a real tokenizer of English and Japanese."""

from pathlib import Path
from typing import Any

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Foxes live in dens, dogs in houses, and the sea is blue.",
    "Interest rates rose after the central bank met in March.",
    "東京都の人口は約一千四百万人です。",
    "東京タワーは港区にあります。",
)
QUERY = "Where do foxes live?"


def make(folder: Path, *, languages: str = "", labels: int = 1, **architecture: Any) -> Path:
    """A folder as the hub has them: config, weights, tokenizer, and a card where it has languages.

    Args:
        folder: where to.
        languages: the card's front matter.
        labels: scores of a pair.
        architecture: other sizes, as BertConfig names them.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    longest = architecture.get("max_position_embeddings", 64)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS, WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), specials, strict=False)),
    ).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "num_labels": labels,
    }
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = BertForSequenceClassification(BertConfig(**sizes | architecture))
    model.save_pretrained(folder)
    if languages:
        (folder / "README.md").write_text(f"---\n{languages}\nlicense: mit\n---\n# Tiny\n")
    return folder
