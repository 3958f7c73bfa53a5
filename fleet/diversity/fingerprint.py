"""What an answer looks like, in some hundred bytes: hashed word bigrams. No text leaves the worker.

Pure. Comparing fingerprints is `likeness.py`, keeping them `window.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from sys import byteorder
from zlib import crc32

#: Bins that bigrams are hashed into. Two unlike answers of 60 words then share 4% by chance; 256 bins made it 12%.
BINS = 1024
#: Characters of an answer that count: bounds the CPU of a long one (about 0.3 ms) and its bytes in Redis (1.3 KB).
MAX_CHARS = 4000
#: Words below which an answer has no fingerprint: a number, a name or a verdict is meant to be the same.
MIN_WORDS = 8
#: Characters per word above which a text is taken as written without spaces, and cut into characters instead.
LONGEST_MEAN_WORD = 16

_LETTERS = bytes(byte if byte >= 0x80 or chr(byte).isalnum() else ord(" ") for byte in range(256))
_HEAD = Struct("<HHI")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One answer as a window keeps it.

    Args:
        bot: Place of the bot in its pool, from 1.
        prompt: 16 bits that tell most prompts apart, and nothing else about them.
        mark: Which remedy the bot was under (`Remedy.mark`); 0 for none.
        bins: Bin of each bigram, sorted, so that the order of the words is gone.
    """

    bot: int
    prompt: int
    mark: int
    bins: array[int]

    def pack(self) -> bytes:
        """Return it as Redis keeps it: 8 bytes and 2 per bigram."""
        return _HEAD.pack(self.bot, self.prompt, self.mark) + _little(self.bins).tobytes()

    @classmethod
    def unpack(cls, packed: bytes) -> Fingerprint:
        """Read what `pack` wrote."""
        bot, prompt, mark = _HEAD.unpack_from(packed)
        bins = array("H")
        bins.frombytes(packed[_HEAD.size :])
        return cls(bot, prompt, mark, _little(bins))


def bins_of(answer: str) -> array[int] | None:
    """Return the bins of an answer's word bigrams, or None when it is too short to tell anything. About 40 us.

    The bigram "a b" is hashed as CRC-32 over both words, which C code does for all words in one go.
    Weakness: it sees words, not meaning. Two answers that say the same in other words look unlike.
    """
    head = answer[:MAX_CHARS].lower()
    words: list[bytes] = head.encode("utf-8", "replace").translate(_LETTERS).split()
    if len(head) > LONGEST_MEAN_WORD * max(1, len(words)):
        words = [char.encode("utf-8", "replace") for char in head if not char.isspace()]
    if len(words) < MIN_WORDS:
        return None
    return array("H", sorted([code >> 11 & BINS - 1 for code in map(crc32, words[1:], map(crc32, words))]))


def prompt_mark(texts: Iterable[str]) -> int:
    """Return 16 bits of a prompt's hash: enough to know most repetitions, too few to know the prompt."""
    hashed = blake2b(digest_size=2)
    for text in texts:
        hashed.update(text.encode("utf-8", "replace"))
        hashed.update(b"\0")
    return int.from_bytes(hashed.digest(), "little")


def _little(bins: array[int]) -> array[int]:
    """Return `bins` in little-endian order, and the reverse on a big-endian machine."""
    if byteorder == "big":
        bins = array("H", bins)
        bins.byteswap()
    return bins
