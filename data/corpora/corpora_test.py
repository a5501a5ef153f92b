#!/usr/bin/env python3
"""Tests of roff.py, extract.py and make_fixture.py."""
import gzip
import pathlib
import struct
import sys
import tempfile
import unittest
import zlib

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import extract  # noqa: E402
import make_fixture  # noqa: E402
import roff  # noqa: E402


class Roff(unittest.TestCase):
    def test_joins_font_macro_lines(self):
        self.assertEqual(roff.to_text("See\n.BR sigevent (7)\nfor\n.I details .\n"),
                         "See sigevent(7) for details .")

    def test_examples_keep_their_lines(self):
        self.assertEqual(roff.to_text("Such as:\n.EX\nint  a;\n    b();\n.EE\nEnd"),
                         "Such as:\nint  a;\n    b();\nEnd")

    def test_escapes(self):
        self.assertEqual(roff.to_text(r"\fBa\fP\-b \(co \[u20AC] \[:a]\&. \*(Aq \e0 \"comment"),
                         "a-b © € ä. ' \\0")

    def test_conditionals_take_the_terminal_branch(self):
        page = ".ie n \\{\\\n\\h'-04'\\(bu\\h'+03'\\c\n.\\}\n.el \\{\\\n.IP \\(bu 2.3\n.\\}\nitem\n"
        self.assertEqual(roff.to_text(page), "•item")
        self.assertEqual(roff.to_text(".if t printed\n.if n .B shown\n"), "shown")

    def test_definitions_and_repeated_sections_are_left_out(self):
        page = ".de XX\nsecret\n..\n.SH NAME\na\n.SH COLOPHON\nboilerplate\n.SH BUGS\nb\n"
        self.assertEqual(roff.to_text(page), "NAME\n\na\n\nBUGS\n\nb")

    def test_tables(self):
        page = ".TS\ntab(@);\nl l\nl l.\na@b\nT{\nlong\ntext\nT}@c\n.TE\n"
        self.assertEqual(roff.to_text(page), "a\tb\nlong text\tc")


class Extract(unittest.TestCase):
    def test_r_character_vectors(self):
        strings = [b"Emma Woodhouse,", b"handsome"]
        value = b"X\n" + struct.pack(">iii", 2, 0, 0) + struct.pack(">ii", 16, len(strings))
        value += b"".join(struct.pack(">ii", 0x40009, len(s)) + s for s in strings)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.rdb")
            path.write_bytes(struct.pack(">I", len(value)) + zlib.compress(value))
            self.assertEqual(list(extract.extract_rdata(path)), ["Emma Woodhouse,\nhandsome"])

    def test_domains_documents_and_duplicates(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "p").mkdir()
            (folder / "p/a").write_text("first quotation, long\n%\nshort\n%\nfirst quotation, long\n")
            (folder / "p/b.gz").write_bytes(gzip.compress("größer als zwanzig Zeichen\f\r\n".encode("latin-1")))
            (folder / "rules").write_text("text|q|p|fortune|a|\ntext|t|p|text|*|^p/a$\n")
            extract.main(folder / "rules", folder, folder)
            self.assertEqual((folder / "q.txt").read_text(), "first quotation, long\n\f\n")
            self.assertEqual((folder / "t.txt").read_text(), "größer als zwanzig Zeichen\n\f\n")


class Fixture(unittest.TestCase):
    def test_the_committed_corpus_is_what_the_script_writes(self):
        with tempfile.TemporaryDirectory() as folder:
            make_fixture.main(folder)
            for path in sorted(pathlib.Path(folder).iterdir()):
                committed = HERE.parents[1] / "tests/fixtures/corpus" / path.name
                self.assertEqual(path.read_bytes(), committed.read_bytes(), path.name)


if __name__ == "__main__":
    unittest.main()
