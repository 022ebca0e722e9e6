import io

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from ftlab.tasks.confusion import confusion_figure, confusion_matrix
from ftlab.tasks.fonts import any_script


def test_confusion_matrix__is_scikit_learns():
    random = np.random.default_rng(0)
    classes = ["b", "a", "never"]
    target, prediction = random.choice(classes[:2], 50), random.choice(classes, 50)
    np.testing.assert_array_equal(
        confusion_matrix(target, prediction, classes),
        sklearn_confusion_matrix(target, prediction, labels=classes),
    )


@pytest.mark.parametrize("size", [2, 5, 30, 100])
def test_confusion_figure__renders(size):
    matrix = np.random.default_rng(0).poisson(3, (size, size)) + 90 * np.eye(size, dtype=int)
    matrix[1] = 0  # a class without examples
    names = [f"a rather long class name, number {i}\n" for i in range(size - 1)] + ["$x_1 <&> $"]
    figure = confusion_figure(matrix, names)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")
    texts = {text.get_text() for text in figure.axes[0].texts}
    share = 100 * matrix[0, 0] / matrix[0].sum()
    assert (f"{matrix[0, 0]}\n{share:.0f}%" in texts) == (size <= 30)


def test_confusion_figure__is_drawn_with_names_in_any_script():
    """A letter that no font of the machine has is a box, not a warning."""
    names = ["体育", "नी", "ไทย", "خبر", "😀", "да"]
    figure = confusion_figure(np.eye(6, dtype=int), names)
    with any_script():
        png = io.BytesIO()
        figure.savefig(png, format="png")
    assert png.getvalue().startswith(b"\x89PNG")
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == names
