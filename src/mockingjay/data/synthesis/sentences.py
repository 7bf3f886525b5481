"""What the voices say: a small grammar of our own in four languages, in a positive, negative or neutral sense.

The polar words come in triples of about equal length that fill the same slots of the same templates, so neither
duration nor structure tells the sense; the other slots are drawn alike for all three. The words are in `words.toml`.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SENTIMENTS = ("positive", "negative", "neutral")
BLOCK = ("positive", "negative", "positive", "negative", "neutral")  # every five sentences of a voice, in drawn order


def sentences(language: str, draw: np.random.Generator, said: set[str]) -> Iterator[tuple[str, str]]:
    """Draw (sentence, sentiment) pairs without end.

    Args:
        language: A table of `words.toml`.
        draw: The only source of randomness.
        said: Sentences already given away; grows, so that no two voices and hence no two splits share a sentence.
    """
    words = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))[language]
    while True:
        for sentiment in draw.permutation(BLOCK).tolist():
            while (text := _sentence(words, sentiment, draw)) in said:
                pass
            said.add(text)
            yield text, sentiment


def _sentence(words: dict[str, Any], sentiment: str, draw: np.random.Generator) -> str:
    picked = {slot: choices[draw.integers(len(choices))] for slot, choices in words.items()}
    the, noun, it = picked["things"]
    sense = SENTIMENTS.index(sentiment)
    text = picked["templates"].format(
        the=the,
        noun=noun,
        it=it,
        person=picked["people"],
        adjective=picked["adjectives"][sense],
        verb=picked["verbs"][sense],
        place=picked["places"],
        time=picked["times"],
    )
    return text[0].upper() + text[1:]
