"""Phone sets, and the foldings between them: one table each, by the phones' names.

| set | phones | of |
|---|---|---|
| 61 | TIMIT's hand-made labels, `h# sh ix dcl …` | TIMIT |
| 48, 39 | what Lee & Hon train and score | TIMIT, and aligned English folded once more |
| 72 | 15 vowels × stress 0 1 2, 24 consonants, `sil sp spn` | forced aligners on English (MFA, Kaldi) |
| 41 | the 72 without stress and with one silence: 39 phones, `SIL`, `SPN` | as the CPC labels count, by number |

The 41 numbers of the CPC alignments have no published names, so they fold into nothing.
"""

from collections.abc import Mapping, Set
from typing import Literal, TypeAlias

SILENCE = "sil"

# Lee & Hon (1989), "Speaker-independent phone recognition using hidden Markov models": TIMIT's 61 symbols are
# trained as 48 and scored as 39. The glottal stop q is deleted there; a frame must have a class, so here it is silence.
_SAME_48 = (
    "iy ih eh ae ix ax ah uw uh ao aa ey ay oy aw ow er l el r w y m n en ng "
    "v f dh th z s zh sh jh ch b p d dx t g k hh epi"
)
TIMIT_61_TO_48: Mapping[str, str] = {
    **{phone: phone for phone in _SAME_48.split()},
    **dict.fromkeys(("pcl", "tcl", "kcl"), "cl"),
    **dict.fromkeys(("bcl", "dcl", "gcl"), "vcl"),
    **dict.fromkeys(("h#", "pau", "q"), SILENCE),
    **{"ux": "uw", "axr": "er", "ax-h": "ax", "em": "m", "nx": "n", "eng": "ng", "hv": "hh"},
}
TIMIT_48_TO_39: Mapping[str, str] = {
    **{phone: phone for phone in TIMIT_61_TO_48.values()},
    **{"cl": SILENCE, "vcl": SILENCE, "epi": SILENCE},
    **{"el": "l", "en": "n", "zh": "sh", "ao": "aa", "ix": "ih", "ax": "ah"},
}
TIMIT_61_TO_39: Mapping[str, str] = {phone: TIMIT_48_TO_39[middle] for phone, middle in TIMIT_61_TO_48.items()}

# The 72 labels of forced aligners on English: CMUdict's 15 vowels with stress 0, 1 or 2, its 24 consonants, sil, sp,
# spn. Without stress, and with one silence, 41 are left: 39 phones, SIL and SPN.
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split()  # noqa: SIM905
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split()  # noqa: SIM905
ARPABET_72: tuple[str, ...] = (
    *(f"{vowel}{stress}" for vowel in _VOWELS for stress in "012"),
    *_CONSONANTS,
    *("sil", "sp", "spn"),
)
ARPABET_72_TO_41: Mapping[str, str] = {
    **{f"{vowel}{stress}": vowel for vowel in _VOWELS for stress in ("0", "1", "2", "")},
    **{consonant: consonant for consonant in _CONSONANTS},
    **dict.fromkeys(("SIL", "SP", "sil", "sp", "", "<eps>"), "SIL"),
    **dict.fromkeys(("SPN", "spn"), "SPN"),
}
# The 41 as Lee & Hon's 39 classes, so that aligned and hand-labelled corpora share their labels. CMUdict has no flap,
# so dx never comes out; spoken noise has no class of its own there and becomes silence.
ARPABET_41_TO_39: Mapping[str, str] = {
    **{phone: TIMIT_61_TO_39[phone.lower()] for phone in _VOWELS + _CONSONANTS},
    **{"SIL": SILENCE, "SPN": SILENCE},
}

Folding: TypeAlias = Literal["48", "41", "39"]

# What `phone:39` and its like name: every phone of every set that can be folded so far, the result's own included.
# TIMIT writes small letters, aligners capitals, and by sil both mean the same: no name has two classes.
FOLDINGS: Mapping[Folding, Mapping[str, str]] = {
    "48": {**{phone: phone for phone in TIMIT_48_TO_39}, **TIMIT_61_TO_48},
    "41": ARPABET_72_TO_41,
    "39": {
        **{phone: ARPABET_41_TO_39[middle] for phone, middle in ARPABET_72_TO_41.items()},
        **TIMIT_48_TO_39,
        **TIMIT_61_TO_39,
    },
}


def folding_of(phones: Set[str]) -> dict[str, str]:
    """Fold TIMIT's 61 phones to 39 and stressed vowels to plain ones; other inventories stay as they are."""
    table = table_of(phones)
    return {phone: table[phone] for phone in sorted(phones)} if table else {}


def table_of(phones: Set[str]) -> Mapping[str, str]:
    """Find the whole table that folds an inventory, with the phones that it happens to lack; none: an empty one."""
    return next((table for table in (TIMIT_61_TO_39, ARPABET_72_TO_41) if phones <= table.keys()), {})
