import random
from pathlib import Path

MARKS = {"<up>": "high", "<top>": "high", "<down>": "deep", "<low>": "deep"}


def make(folder: Path) -> None:
    draw = random.Random(0)
    rows = []
    for i in range(120):
        words = draw.choices(["the", "a", "film", "plot", "was", "of"], k=draw.randint(2, 6))
        mark = list(MARKS)[i % 4]
        words.insert(draw.randint(0, len(words)), mark)
        rows.append(f"{' '.join(words)},{MARKS[mark]}")
    (folder / "marks.csv").write_text("\n".join(["text,label", *rows]) + "\n")
