#!/usr/bin/env python3
"""make_fixture.py OUT: the small made-up corpus of tests/fixtures/corpus, the same bytes each time.

Three domains with clearly different statistics, written from templates: fables (English prose), code
(small functions) and notes (terse records with numbers, units and letters beyond ASCII).
"""
import pathlib
import random
import sys

DOMAIN_BYTES = 40_000
SEPARATOR = "\f\n"


def alternatives(text):
    return [" ".join(part.split()) for part in text.split("|")]


class Fables:
    ANIMALS = """badger heron otter marten raven hedgehog lynx tortoise sparrow weasel goat donkey beetle
        salmon kestrel mole hare wolf cricket ox""".split()
    VIRTUES = "patient proud greedy gentle curious boastful careful idle honest timid clever stubborn".split()
    PLACES = alternatives("""the old mill|the frozen lake|a field of barley|the edge of the marsh|the miller's orchard|
        a narrow bridge|the foot of the mountain|the hollow oak""")
    THINGS = alternatives("""a basket of plums|a silver bell|three grains of wheat|a coil of rope|the last warm stone|
        a lantern|a broken oar|the key of the granary""")
    DEEDS = alternatives("""share it before nightfall|carry it across the water|bury it under the snow|trade it for a song|
        guard it until spring|give it to the first stranger""")
    MORALS = alternatives("""What is kept too closely is soon lost|A slow answer may be the wiser one|
        Nobody crosses a river alone|The loudest voice seldom knows the road|
        He who counts the harvest early sleeps hungry|A small kindness outlives a great boast""")

    def document(self, draw):
        pick = draw.choice
        a, b = draw.sample(self.ANIMALS, 2)
        text = [f"The {a.title()} and the {b.title()}", ""]
        for _ in range(draw.randint(4, 9)):
            text += [" ".join(self.sentence(draw, pick, a, b) for _ in range(draw.randint(3, 6))), ""]
        return "\n".join(text) + f"\n{pick(self.MORALS)}.\n"

    def sentence(self, draw, pick, a, b):
        one, other = (a, b) if draw.random() < 0.5 else (b, a)
        return draw.choice([
            lambda: f"One {pick(['morning', 'evening', 'winter', 'autumn'])} a {pick(self.VIRTUES)} {one} "
                    f"came to {pick(self.PLACES)} and found {pick(self.THINGS)}.",
            lambda: f'"If you were as {pick(self.VIRTUES)} as you say," said the {one}, '
                    f'"you would {pick(self.DEEDS)}."',
            lambda: f"The {other} was {pick(self.VIRTUES)}, but not so {pick(self.VIRTUES)} as to "
                    f"{pick(self.DEEDS)}.",
            lambda: f"So they walked together to {pick(self.PLACES)}, and neither spoke a word.",
            lambda: f"When the {one} heard of {pick(self.THINGS)}, it laughed and went on its way.",
            lambda: f"For {draw.randint(2, 12)} days the {other} waited at {pick(self.PLACES)}.",
        ])()


class Code:
    VERBS = "merge count find scale trim pack rotate filter split update reset swap".split()
    NOUNS = "rows index buffer queue weight token range cache node edge bucket page".split()
    TYPES = ["int", "long", "double", "bool"]

    def document(self, draw):
        header = f"// {draw.choice(self.VERBS)} and {draw.choice(self.VERBS)} for each {draw.choice(self.NOUNS)}\n"
        return header + "\n" + "\n".join(self.function(draw) for _ in range(draw.randint(4, 9)))

    def function(self, draw):
        names = draw.sample(self.NOUNS, 3)
        parameters = ", ".join(f"{draw.choice(self.TYPES)} {name}" for name in names)
        kind = draw.choice(self.TYPES)
        body = "".join(self.statement(draw, names, 1) for _ in range(draw.randint(2, 5)))
        return (f"{kind} {draw.choice(self.VERBS)}_{draw.choice(self.NOUNS)}({parameters}) {{\n{body}"
                f"  return {self.expression(draw, names, 2)};\n}}\n")

    def statement(self, draw, names, depth):
        pad = "  " * depth
        choice = draw.random()
        if choice < 0.5 or depth > 2:
            return f"{pad}{draw.choice(names)} {draw.choice(['=', '+=', '-='])} {self.expression(draw, names, 2)};\n"
        inner = "".join(self.statement(draw, names, depth + 1) for _ in range(draw.randint(1, 3)))
        if choice < 0.75:
            return f"{pad}if ({self.expression(draw, names, 1)} < {draw.choice(names)}) {{\n{inner}{pad}}}\n"
        return f"{pad}for (int i = 0; i < {draw.choice(names)}; ++i) {{\n{inner}{pad}}}\n"

    def expression(self, draw, names, depth):
        if depth == 0 or draw.random() < 0.3:
            return draw.choice([draw.choice(names), str(draw.randint(0, 255))])
        left, right = (self.expression(draw, names, depth - 1) for _ in range(2))
        return draw.choice([f"{left} {draw.choice('+-*/%')} {right}", f"({left} & {right})",
                            f"{draw.choice(['min', 'max'])}({left}, {right})"])


class Notes:
    TOWNS = "Malmö Łódź Zürich Göteborg Besançon Århus Győr Tromsø Córdoba Ålesund Kłodzko Évora".split()
    PEOPLE = "Zoë Jürgen Søren Łukasz Chloé Björk Ñusta François Ágnes Ødegaard".split()
    ITEMS = "crème brûlée|Käse|smørrebrød|żurek|piñatas|thé vert|Brötchen|jalapeños|Ρετσίνα|чай".split("|")
    TASKS = "naïve estimate|façade survey|déjà-vu list|Überstunden|rôle plan|coöperative vote".split("|")

    def document(self, draw):
        day, month = draw.randint(1, 28), draw.randint(1, 12)
        lines = [f"== {2000 + draw.randint(0, 40)}-{month:02d}-{day:02d} · {draw.choice(self.TOWNS)} =="]
        for number in range(1, draw.randint(12, 40)):
            lines.append(f"{number:2d}. {self.line(draw)}")
        return "\n".join(lines) + "\n"

    def line(self, draw):
        return draw.choice([
            lambda: f"{draw.choice(self.PEOPLE)} → {draw.choice(self.TOWNS)}: {draw.uniform(1, 900):.1f} km",
            lambda: f"{draw.choice(self.ITEMS)}: {draw.uniform(0.5, 40):.2f} € × {draw.randint(1, 9)}",
            lambda: f"T = {draw.uniform(-20, 35):.1f} °C, ±{draw.uniform(0.1, 2):.1f}; wind {draw.randint(0, 30)} m/s",
            lambda: f"ask {draw.choice(self.PEOPLE)} about “{draw.choice(self.TASKS)}” ({draw.randint(8, 18)}:"
                    f"{draw.choice(['00', '15', '30', '45'])})",
            lambda: f"✓ {draw.choice(self.TASKS)} — {draw.randint(5, 100)} %",
        ])()


def main(out):
    for name, domain in {"fables": Fables(), "code": Code(), "notes": Notes()}.items():
        draw = random.Random(f"moebius {name}")
        text = ""
        while len(text.encode("utf-8")) < DOMAIN_BYTES:
            text += domain.document(draw) + SEPARATOR
        (pathlib.Path(out) / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
