"""Changes of every text of a data set, made once, before it is split into tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod


class TextNormalisation(ABC):
    """Text -> text, for training and evaluation alike."""

    @abstractmethod
    def __call__(self, text: str) -> str:
        """The normalised text."""


class Lemmatise(TextNormalisation):
    """Replace each word by its lemma: "were running" becomes "be run".

    Source: Barbaresi (2021), simplemma, https://doi.org/10.5281/zenodo.4673264

    Args:
        language: simplemma's code, for instance `en` or `de`.
    """

    def __init__(self, language: str = "en") -> None:
        import simplemma

        try:
            simplemma.lemmatize("text", lang=language)
        except ValueError:
            raise ValueError(f"language must be one that simplemma knows, got {language!r}"
                             ) from None
        self.language = language

    def __call__(self, text: str) -> str:
        import simplemma

        lemmas = simplemma.text_lemmatizer(text, lang=self.language)
        return " ".join(lemmas) or text
