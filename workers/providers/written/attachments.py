"""Images and files as the wires carry them: as an address, or as base64 with a media type."""

from __future__ import annotations

from fleet.conversation import FilePart, ImagePart

#: How base64 of each kind begins.
_HEADS = {
    "/9j/": "image/jpeg", "iVBOR": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp",
    "JVBERi": "application/pdf",
}  # fmt: skip


def media_type_of(part: ImagePart | FilePart) -> str:
    """Return what kind of data a part holds: as it says, else as the data shows."""
    head = next((kind for start, kind in _HEADS.items() if (part.data or "").startswith(start)), None)
    return part.media_type or head or ("image/png" if isinstance(part, ImagePart) else "application/octet-stream")


def address_of(part: ImagePart | FilePart) -> str:
    """Return a part's address; its data as a data address."""
    return part.url or f"data:{media_type_of(part)};base64,{part.data or ''}"
