"""Manual pages (roff source, man macros) to plain text as a reader sees it.

Filled text is joined into paragraphs and wrapped at 79 columns; examples and tables keep their
lines. Licence comments and the repeated closing sections about page formats are left out. Pages in
the mdoc macros give no text.
"""
import re
import textwrap
import unicodedata

WIDTH = 79
REPEATED_SECTIONS = {"COLOPHON", "KOLOPHON", "ÜBERSETZUNG"}

CHARACTERS = {  # groff_char(7)
    "aq": "'", "cq": "’", "oq": "‘", "lq": "“", "rq": "”", "dq": '"', "em": "—", "en": "–", "hy": "-",
    "bu": "•", "co": "©", "ha": "^", "ti": "~", "rs": "\\", "at": "@", "mu": "×", "+-": "±", "mc": "µ",
    "<=": "≤", ">=": "≥", "->": "→", "<-": "←", "de": "°", "is": "∫", "if": "∞", "pd": "∂", "dg": "†",
    "la": "⟨", "ra": "⟩", "ga": "`", "aa": "´", "ss": "ß", "sc": "§", "rg": "®", "tm": "™", "Eu": "€",
    "*b": "β", "*p": "π", "sh": "#", "ul": "_", "ba": "|", "or": "|", "sq": "□", "Fo": "«", "Fc": "»",
}
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327"}
STRINGS = {"Aq": "'", "lq": "“", "rq": "”", "L\"": "“", "R\"": "”", "C`": '"', "C'": '"', "-": "—",
           "la": "⟨", "ra": "⟩", "Gt": ">", "Lt": "<", "Am": "&", "R": "®", "Tm": "™"}
SINGLE = {"-": "-", "e": "\\", "&": "", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", "t": "\t",
          ".": ".", "|": "", "^": "", "/": "", ",": "", "%": "", ":": "", ")": "", "{": "", "}": "",
          "\\": "\\"}

ESCAPE = re.compile(
    r"\\(?:"
    r"[fFmMgk](?:\[[^\]]*\]|\(..|.)"                   # font, colour, position
    r"|n[-+]?(?:\[[^\]]*\]|\(..|.)"                    # number register
    r"|s(?:[-+]?(?:\d{1,2}|\(\d\d|\[[^\]]*\])|'[^']*')"  # size
    r"|[hvwZlLxbRSHDXoNz]'[^']*'"                      # motion, width, drawing
    r"|\[u(?P<hex>[0-9A-F]{4,6})\]|\[char(?P<decimal>\d+)\]"
    r"|\*(?:\[(?P<string3>[^\]]*)\]|\((?P<string2>..)|(?P<string1>.))"
    r"|\[(?P<name>[^\]]+)\]|\((?P<name2>..)"
    r"|[udrpazc]"                                      # half-line motion, break, continuation
    r"|(?P<single>.))")


def character(name):
    if name in CHARACTERS:
        return CHARACTERS[name]
    for accent, letter in ((name[0], name[1:]), (name[-1], name[:-1])):
        if accent in ACCENTS and len(letter) == 1 and letter.isalpha():
            return unicodedata.normalize("NFC", letter + ACCENTS[accent])
    return ""


def unescape(text):
    def replace(match):
        if match["hex"]:
            return chr(int(match["hex"], 16))
        if match["decimal"]:
            return chr(int(match["decimal"]))
        name = match["name"] or match["name2"]
        if name:
            return character(name)
        string = match["string3"] or match["string2"] or match["string1"]
        if string:
            return STRINGS.get(string, "")
        return SINGLE.get(match["single"], "") if match["single"] else ""

    return ESCAPE.sub(replace, re.sub(r'\\["#].*$', "", text))


def arguments(text):
    """A macro's arguments: words, or quoted strings in which "" is a quote."""
    text = re.sub(r'(?<!\\)\\".*$', "", text)
    return [(quoted[1:-1] if quoted.endswith('"') else quoted[1:]).replace('""', '"') if quoted else word
            for quoted, word in re.findall(r'("(?:[^"]|"")*(?:"|$))|((?:\\.|[^\s\\])+)', text)]


class Page:
    """Renders one page line by line."""

    JOINED = {"BR", "BI", "IB", "IR", "RB", "RI"}
    SPACED = {"B", "I", "SM", "SB"}
    BREAKS = {"br", "sp", "PP", "P", "LP", "RS", "RE", "in", "ti", "Sp", "SY", "YS", "ce", "HP", "INDENT",
              "UNINDENT"}

    def __init__(self):
        self.out = []
        self.words = []           # of the paragraph being filled
        self.filled = True
        self.continued = False    # the last line ended with \c
        self.tag_follows = False  # the next text line is the tag of .TP
        self.prefix = ""          # bullet before the next paragraph
        self.condition = False    # of the last .ie
        self.section_kept = True
        self.link = ""

    def flush(self):
        text = " ".join(self.words).strip()
        self.words = []
        self.continued = False
        if text and self.section_kept:
            self.out += textwrap.wrap(self.prefix + text, WIDTH, break_long_words=False,
                                      break_on_hyphens=False)
            self.prefix = ""

    def blank(self):
        self.flush()
        if self.out and self.out[-1]:
            self.out.append("")

    def text(self, raw):
        continued = raw.endswith("\\c")
        line = unescape(raw)
        if not self.filled:
            if self.section_kept:
                if self.continued:
                    self.out[-1] += line
                else:
                    self.out.append(self.prefix + line.rstrip())
                    self.prefix = ""
            self.continued = continued and self.section_kept
            return
        if not line.strip():
            if not continued and not self.prefix:
                self.blank()
            return
        if line[0] == " " and not self.continued:  # leading blanks break a filled line
            self.flush()
        if self.continued and self.words:
            self.words[-1] += line.strip()
        else:
            self.words.append(line.strip())
        self.continued = continued
        if self.tag_follows:
            self.tag_follows = False
            self.flush()

    def heading(self, rest):
        self.blank()
        self.filled, self.tag_follows, self.prefix = True, False, ""
        title = unescape(" ".join(arguments(rest)))
        self.section_kept = title.upper() not in REPEATED_SECTIONS
        if self.section_kept:
            self.out += [title, ""]

    def paragraph_tag(self, words):
        self.blank()
        tag = unescape(words[0]) if words else ""
        if len(tag) == 1 and not tag.isalnum():
            self.prefix = tag + " "
        elif tag:
            self.text(words[0])
            self.flush()

    def macro(self, name, rest):
        if name in self.JOINED:
            words = arguments(rest)
            self.text("".join(words) if words else "")
        elif name in self.SPACED:
            if rest:
                self.text(" ".join(arguments(rest)))
        elif name in ("SH", "SS"):
            self.heading(rest)
        elif name in ("TP", "TQ"):
            self.blank() if name == "TP" else self.flush()
            self.tag_follows = True
        elif name == "IP":
            self.paragraph_tag(arguments(rest))
        elif name in ("nf", "EX", "Vb"):
            self.flush()
            self.filled = False
        elif name in ("fi", "EE", "Ve"):
            self.flush()
            self.filled = True
        elif name in ("PP", "P", "LP", "sp", "HP", "Sp"):
            if not (name == "sp" and rest.strip().startswith("-")):
                self.blank()
        elif name in ("UR", "MT"):
            self.link = rest.strip()
        elif name in ("UE", "ME"):
            self.text(f"⟨{self.link}⟩{rest.strip()}")
        elif name in ("URL", "MTO"):
            words = arguments(rest) + ["", "", ""]
            self.text(f"{words[1]} ⟨{words[0]}⟩{words[2]}".strip())
        elif name == "OP":
            self.text("[" + " ".join(arguments(rest)) + "]")
        elif name in self.BREAKS:
            self.flush()
            if name == "SY" and rest:
                self.text(rest)


def table_rows(lines):
    """Rows of a .TS table (tbl): everything after the format lines, T{ blocks joined, tabs kept."""
    separator = "\t"
    match = re.search(r"tab\s*\((.)\)", lines[0]) if lines and lines[0].rstrip().endswith(";") else None
    if match:
        separator = match[1]
    start = next((i + 1 for i, line in enumerate(lines) if line.rstrip().endswith(".")), len(lines))
    body = "\n".join(lines[start:])
    body = re.sub(r"(?m)^\.T&\n(?:.*[^.\s]\s*\n)*.*\.\s*$", "", body)
    body = re.sub(r"T\{\n(.*?)\n?T\}", lambda m: m[1].replace("\n", " "), body, flags=re.S)
    body = re.sub(r"(^|\s)\.(?:[BI]|[BIR]{2})\s+", r"\1", body)
    for row in body.split("\n"):
        row = row.strip()
        if row and not re.fullmatch(r"[_=\s]*|\.(?:sp|T&|br|PP|ad|nh|hy).*", row):
            yield unescape(row.replace(separator, "\t"))


def skip_block(lines, at):
    """The index after a \\{ block that is still open at the end of line `at`."""
    depth = lines[at].count("\\{") - lines[at].count("\\}")
    while depth > 0 and at + 1 < len(lines):
        at += 1
        depth += lines[at].count("\\{") - lines[at].count("\\}")
    return at + 1


def to_text(source):
    if re.search(r"(?m)^\.Dd\b", source) or re.match(r"\.so ", source):
        return ""
    page = Page()
    lines = source.replace("\\\n", "").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        match = re.match(r"[.'][ \t]*([A-Za-z]+|\\\}|\\\{)?[ \t]*(.*)$", line)
        if not match:
            page.text(line)
            continue
        name, rest = match[1] or "", match[2]
        if name in ("de", "am", "ig"):
            end = ".." if name == "ig" or len(rest.split()) < 2 else "." + rest.split()[1]
            while at < len(lines) and lines[at].rstrip() != end:
                at += 1
            at += 1
        elif name == "TS":
            end = next((i for i in range(at, len(lines)) if re.match(r"\.TE\b", lines[i])), len(lines))
            page.blank()
            if page.section_kept:
                page.out += table_rows(lines[at:end])
            at = end + 1
        elif name in ("if", "ie", "el"):
            condition, body = ("", rest) if name == "el" else (rest.split(None, 1) + ["", ""])[:2]
            taken = not page.condition if name == "el" else condition in ("n", "!t")
            if name == "ie":
                page.condition = taken
            if not taken:
                at = skip_block(lines, at - 1)
            elif body and not body.startswith("\\{"):
                lines.insert(at, body)
            elif body[2:].strip():
                lines.insert(at, body[2:])
        else:
            page.macro(name, rest)
    page.flush()
    return "\n".join(page.out).rstrip("\n")
