"""What a German spreadsheet writes as plain CSV, and as Unicode text."""

from pathlib import Path


def make(folder: Path) -> None:
    rows = [f"Das Gerät Nummer {i} läuft für Müller;{('gut', 'mäßig')[i % 2]}" for i in range(100)]
    text = "\r\n".join(["text;label", *rows])
    (folder / "german.csv").write_bytes(text.encode("cp1252"))
    (folder / "utf16.csv").write_bytes(text.encode("utf-16"))
