"""One small set of phone names for all languages, folded from espeak-ng's IPA.

The rule: stress, length and syllabicity are dropped; a vowel that ends in ə, ɐ, ɚ or ɹ is the vowel it begins with; the
few symbols of `_MERGED` join their nearest neighbour. English has 43 classes, all four languages together 60, silence
included.
"""

_DROPPED = str.maketrans("", "", "ˈˌː-\u0329")
_GLIDES_AWAY = "əɐɚɹ"
_MERGED = {
    "ᵻ": "ə",  # reduced vowels are one class
    "ɐ": "ə",
    "ɚ": "ɜ",  # the vowel of *nurse*, stressed or not
    "əl": "l",
    "əʊ": "oʊ",  # *boat* in both Englishes
    "ɒ": "ɔ",
    "ɔø": "ɔɪ",  # German *neu*, English and Spanish *oi*
    "oɪ": "ɔɪ",
    "œ̃": "ɛ̃",  # merged in Paris
    "ʔ": "t",  # English *button*
    "ʀ": "ʁ",  # German and French
    "ʝ": "ʎ",
    "pf": "f",
}


def fold(symbol: str) -> str:
    """Name the class of one of espeak-ng's phones."""
    bare = symbol.translate(_DROPPED)
    if len(bare) > 1:
        bare = bare.rstrip(_GLIDES_AWAY) or bare[0]
    return _MERGED.get(bare, bare)
