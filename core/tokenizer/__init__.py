"""Text to token ids and back: byte-level byte-pair encoding, as GPT-2 has it."""

from tfx.core.tokenizer.bpe import ByteLevelBPE
from tfx.core.tokenizer.files import load_tokenizer
from tfx.core.tokenizer.save import save_tokenizer, tokenizer_files
from tfx.core.tokenizer.train import train_tokenizer

__all__ = [
    "ByteLevelBPE",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_files",
    "train_tokenizer",
]
