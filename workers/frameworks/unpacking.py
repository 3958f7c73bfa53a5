"""Bytes of a streamed answer as they pass by: unpacked, and cut into its events, whatever form the vendor sends.

Events of a stream (OpenAI, Anthropic, Gemini), or JSON values one after the other: an array (Gemini), or one a line
(Ollama). Weakness: binary events, such as Bedrock's, cannot be read, nor what no library here can unpack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Protocol

from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD, BrotliDecompressor, ZLibDecompressor, ZSTDDecompressor

from fleet.workers.providers.answers.sse import MAX_EVENT_BYTES, ServerEvent, SseParser, TooLong

#: Unpacks the next bytes.
Unpack = Callable[[bytes], bytes]
#: Most bytes that one piece may be unpacked to: as much as an event may have.
_MOST = MAX_EVENT_BYTES
#: What stands between JSON values that follow each other.
_BETWEEN = " \t\r\n,[]"


class Events(Protocol):
    """Cuts bytes into events."""

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that end in `chunk`."""
        ...

    def close(self) -> Iterator[ServerEvent]:
        """Yield what is left at the end."""
        ...


class JsonValues:
    """Reads JSON values that follow each other: of an array, or one a line."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the values that end in `chunk`.

        Raises:
            TooLong: When one does not end.
        """
        self._held += chunk
        if len(self._held) > MAX_EVENT_BYTES:
            raise TooLong(f"expected values of at most {MAX_EVENT_BYTES} bytes")
        if self._held.rstrip(b" \t\r\n,]").endswith(b"}"):  # else no value ends here
            yield from self.close()

    def close(self) -> Iterator[ServerEvent]:
        """Yield the values that are whole."""
        text = self._held.decode("utf-8", "replace")
        at = _skip(text, 0)
        while at < len(text):
            try:
                _, end = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                break
            yield ServerEvent("", text[at:end])
            at = _skip(text, end)
        self._held = text[at:].encode("utf-8", "replace")


def events_of(content_type: str) -> Events:
    """Return what cuts an answer of this type into events."""
    return JsonValues() if "json" in content_type.lower() else SseParser()


def unpacking(content_encoding: str) -> Unpack | None:
    """Return what unpacks an answer of this encoding; None when nothing here can."""
    layers: list[Unpack] = []
    for name in reversed([part.strip().lower() for part in content_encoding.split(",")]):
        if name in ("gzip", "x-gzip", "deflate"):
            layers.append(_bounded(ZLibDecompressor(encoding=name.removeprefix("x-"))))
        elif name == "br" and HAS_BROTLI:
            layers.append(_bounded(BrotliDecompressor()))
        elif name == "zstd" and HAS_ZSTD:
            layers.append(_bounded(ZSTDDecompressor()))
        elif name not in ("", "identity"):
            return None

    def unpack(chunk: bytes) -> bytes:
        for layer in layers:
            chunk = layer(chunk)
        return chunk

    return unpack


def _bounded(decompressor: ZLibDecompressor | BrotliDecompressor | ZSTDDecompressor) -> Unpack:
    def unpack(chunk: bytes) -> bytes:
        unpacked = decompressor.decompress_sync(chunk, _MOST)
        if len(unpacked) >= _MOST:
            raise TooLong(f"expected pieces of at most {_MOST} bytes")
        return unpacked

    return unpack


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BETWEEN:
        at += 1
    return at


_DECODER = json.JSONDecoder()
