"""Text while it is being written, token by token."""

from __future__ import annotations

import codecs

from tfx.core.tokenizer.bpe import ByteLevelBPE


class StreamDecoder:
    """Turns ids into text one at a time, and holds a character back until all its bytes are there.

    What `feed` and, at the end, `flush` return makes up the text that `tokenizer.decode` has for
    all the ids together.

    >>> from tfx.core.tokenizer.byte_pairs import ALPHABET
    >>> tokenizer = ByteLevelBPE({spelled: byte for byte, spelled in enumerate(ALPHABET)}, [])
    >>> stream = StreamDecoder(tokenizer)
    >>> [stream.feed(token) for token in tokenizer.encode("né")], stream.flush()
    (['n', '', 'é'], '')
    >>> stream.feed(0xC3), stream.flush()
    ('', '\N{REPLACEMENT CHARACTER}')
    """

    def __init__(self, tokenizer: ByteLevelBPE, *, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The characters that `token_id` completes; `TokenizerError` for an id out of range."""
        return self._utf8.decode(
            self._tokenizer.decode_bytes([token_id], skip_special_tokens=self._skip_special_tokens)
        )

    def flush(self) -> str:
        """U+FFFD if the ids ended within a character, else nothing. Then a new text may begin."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
