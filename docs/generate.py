"""Writes the generated pages of this folder: configuration.md. A test checks that they are current."""

from __future__ import annotations

from pathlib import Path

from fleet.cli.setup.reference import reference_text

if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(reference_text(), encoding="utf-8")
