"""What the voices say: a small grammar of our own in four languages, each sentence in a good, a bad and a neutral sense.

The polar words come in triples of about equal length that fill the same slots of the same templates, so neither duration nor
structure tells the sense; the other slots are drawn alike for all three.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SENTIMENTS = ("positive", "negative", "neutral")
BLOCK = (
    "positive",
    "negative",
    "positive",
    "negative",
    "neutral",
)  # in every five sentences of a voice, in drawn order


@dataclass(frozen=True, slots=True)
class Language:
    """Word lists and templates; `adjectives` and `verbs` are triples in the order of `SENTIMENTS`."""

    templates: tuple[str, ...]
    people: tuple[str, ...]
    things: tuple[tuple[str, str, str], ...]  # article, noun, pronoun
    adjectives: tuple[tuple[str, str, str], ...]
    verbs: tuple[tuple[str, str, str], ...]
    places: tuple[str, ...]
    times: tuple[str, ...]

    def sentence(self, sentiment: str, draw: np.random.Generator) -> str:
        """Draw one sentence of a sentiment."""

        def pick(words):
            return words[draw.integers(len(words))]

        sense = SENTIMENTS.index(sentiment)
        the, noun, it = pick(self.things)
        text = pick(self.templates).format(
            the=the,
            noun=noun,
            it=it,
            person=pick(self.people),
            adjective=pick(self.adjectives)[sense],
            verb=pick(self.verbs)[sense],
            place=pick(self.places),
            time=pick(self.times),
        )
        return text[0].upper() + text[1:]


def _things(words: str) -> tuple[tuple[str, str, str], ...]:
    """Read `article noun pronoun` triples."""
    parts = words.split()
    return tuple(zip(parts[::3], parts[1::3], parts[2::3]))


def _triples(words: str) -> tuple[tuple[str, str, str], ...]:
    """Read triples of single words, one triple after another."""
    return _things(words)


def _phrases(words: str) -> tuple[str, ...]:
    """Read phrases that stand between commas."""
    return tuple(phrase.strip() for phrase in words.split(","))


def stream(language: str, draw: np.random.Generator, said: set[str]) -> Iterator[tuple[str, str]]:
    """Draw (sentence, sentiment) pairs without end: blocks of `BLOCK` in drawn order, no sentence that was `said` before.

    Args:
        language: A key of `LANGUAGES`.
        draw: The only source of randomness.
        said: Sentences already given away; grows, so that no two voices and hence no two splits share a sentence.
    """
    while True:
        for sentiment in draw.permutation(BLOCK).tolist():
            while (text := LANGUAGES[language].sentence(sentiment, draw)) in said:
                pass
            said.add(text)
            yield text, sentiment


ENGLISH = Language(
    templates=(
        "{person} {verb} {the} {adjective} {noun}.",
        "We {verb} {the} {adjective} {noun} {place}.",
        "{time} {person} {verb} {the} {adjective} {noun}.",
        "{the} {noun} was {adjective}, {person} {verb} {it}.",
        "{the} {noun} {place} was {adjective} and I {verb} {it}.",
    ),
    people=_phrases(
        "Mary, my uncle, the teacher, our neighbour, the young judge, George, the nurse, their cousin, the pilot, Sheila"
    ),
    things=tuple(
        ("the", noun, "it")
        for noun in "soup house garden journey picture music coat village boat theatre song chair treasure toy bread "
        "winter beach cheese".split()
    ),
    adjectives=_triples(
        "wonderful horrible regular lovely nasty local pleasant dreadful recent brilliant rotten wooden great bad round "
        "delightful disgusting domestic charming boring central perfect hopeless public"
    ),
    verbs=_triples(
        "loved hated found praised blamed named embraced despised described admired condemned observed "
        "welcomed rejected mentioned adored abhorred reviewed"
    ),
    places=_phrases(
        "in the village, near the bridge, by the river, at the market, behind the church, on the island, "
        "under the oak, from the north"
    ),
    times=_phrases("yesterday, last year, on Thursday, in July, this morning, once again, at noon, after the show"),
)

GERMAN = Language(
    templates=(
        "{person} {verb} {the} {adjective}e {noun}.",
        "{person} {verb} {the} {adjective}e {noun} {place}.",
        "{time} {verb} {person} {the} {adjective}e {noun}.",
        "{the} {noun} ist {adjective}, {person} {verb} {it}.",
        "{the} {noun} {place} ist {adjective} und man {verb} {it}.",
    ),
    people=_phrases(
        "Maria, mein Onkel, die Lehrerin, unser Nachbar, der junge Richter, Jürgen, die Köchin, ihr Vetter, "
        "der Schüler, Sabine"
    ),
    things=_things(
        "die Suppe sie das Haus es die Reise sie das Bild es die Kirche sie die Musik sie das Buch es die Stadt sie "
        "das Boot es die Geschichte sie die Wohnung sie das Frühstück es die Brücke sie das Zeugnis es die Höhle sie "
        "die Zeitung sie das Mädchen es das Pferd es"
    ),
    adjectives=_triples(
        "herrlich schrecklich nördlich prächtig eklig hölzern freundlich grausam englisch köstlich scheußlich üblich "
        "schön schlimm rund toll fies bunt wunderbar ekelhaft einfarbig gut mies neu"
    ),
    verbs=_triples(
        "liebt hasst kennt lobt schmäht sieht empfiehlt verflucht beschreibt bewundert verachtet betrachtet "
        "begrüßt verdammt erwähnt verehrt verhöhnt bemerkt"
    ),
    places=_phrases(
        "im Dorf, an der Brücke, am Fluss, auf dem Markt, vor dem Garten, auf der Insel, im Wald, aus dem Norden"
    ),
    times=_phrases("heute, jedes Jahr, am Donnerstag, im Juli, jeden Morgen, schon wieder, zu Mittag, nach dem Fest"),
)

SPANISH = Language(
    templates=(
        "{person} {verb} {the} {noun} {adjective}.",
        "{person} {verb} {the} {noun} {adjective} {place}.",
        "{time} {person} {verb} {the} {noun} {adjective}.",
        "{the} {noun} es {adjective}, {person} {it} {verb}.",
        "{the} {noun} {place} es {adjective} y usted {it} {verb}.",
    ),
    people=_phrases(
        "María, mi tío, la maestra, nuestro vecino, el juez joven, Jorge, la enfermera, su primo, el chófer, Guillermo"
    ),
    things=tuple(
        ("la", noun, "la")
        for noun in "sopa casa música iglesia ciudad playa historia lluvia guitarra montaña carta bicicleta leche calle "
        "fiesta película llave rosa".split()
    ),
    adjectives=_triples(
        "hermosa horrible redonda magnífica espantosa amarilla buena mala larga linda fea alta agradable repugnante "
        "diferente preciosa terrible moderna bonita odiosa antigua divina maldita pequeña"
    ),
    verbs=_triples(
        "ama odia mira aplaude condena prepara bendice detesta observa disfruta desprecia describe celebra maldice conoce "
        "respeta rechaza menciona"
    ),
    places=_phrases(
        "en el pueblo, cerca del puente, junto al río, en el mercado, detrás del jardín, en la isla, bajo el roble, del norte"
    ),
    times=_phrases("hoy, cada año, los jueves, en julio, por la mañana, otra vez, a mediodía, después del baile"),
)

FRENCH = Language(
    templates=(
        "{person} {verb} {the} {noun} {adjective}.",
        "{person} {verb} {the} {noun} {adjective} {place}.",
        "{time} {person} {verb} {the} {noun} {adjective}.",
        "{the} {noun} est {adjective}, {person} {it} {verb}.",
        "{the} {noun} {place} est {adjective} et chacun {it} {verb}.",
    ),
    people=_phrases(
        "Marie, mon oncle, la maîtresse, notre voisin, le jeune juge, Georges, la reine, leur cousin, le berger, Guillaume"
    ),
    things=tuple(
        ("la", noun, "la")
        for noun in "soupe maison musique ville chanson plage montagne lettre rue fête lune voiture forêt cuisine guitare "
        "chambre robe gare".split()
    ),
    adjectives=_triples(
        "belle laide ronde superbe horrible moderne charmante méchante suivante parfaite affreuse carrée "
        "merveilleuse désastreuse régionale agréable détestable ordinaire délicieuse dégoûtante naturelle "
        "jolie pourrie dorée"
    ),
    verbs=_triples(
        "vante blâme montre préfère déteste regarde célèbre maudit décrit chérit rejette connaît savoure méprise raconte "
        "bénit punit finit"
    ),
    places=_phrases(
        "du village, près du pont, au bord du fleuve, au marché, derrière le jardin, sur la colline, sous le chêne, du nord"
    ),
    times=_phrases("aujourd'hui, chaque année, le jeudi, en juillet, ce matin, à nouveau, à midi, après le bal"),
)

LANGUAGES = {"en": ENGLISH, "de": GERMAN, "es": SPANISH, "fr": FRENCH}
