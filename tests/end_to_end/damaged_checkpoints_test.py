#!/usr/bin/env python3
"""Checkpoints that are damaged are noticed, and an older good one is used."""
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, checkpoints, flip_bit, results, truncate  # noqa: E402

RUN = {"train__num_steps": 6, "checkpoint__interval_steps": 2}
BAD_INPUT = 2


def shard(checkpoint):
    return next(checkpoint.glob("*.safetensors"))


# What happens to a checkpoint, and what the warning says of it.
DAMAGES = {
    "bit of a tensor": (lambda c: flip_bit(shard(c), 0.7), ["safetensors", "tensor '", "checksum"]),
    "bit of a shard's header": (lambda c: flip_bit(shard(c), 0.001), ["safetensors"]),
    "shard truncated": (lambda c: truncate(shard(c)), ["safetensors"]),
    "shard emptied": (lambda c: shard(c).write_bytes(b""), ["safetensors"]),
    "shard lost": (lambda c: shard(c).unlink(), ["safetensors", "No such file"]),
    "manifest lost": (lambda c: (c / "manifest.json").unlink(), ["manifest.json", "No such file"]),
    "bit of the manifest": (lambda c: flip_bit(c / "manifest.json"), ["manifest.json"]),
    "manifest truncated": (lambda c: truncate(c / "manifest.json", 100), ["manifest.json"]),
    "bit of the config": (lambda c: flip_bit(c / "config.textproto"),
                          ["config.textproto", "checksum"]),
    "tokenizer lost": (lambda c: (c / "tokenizer.json").unlink(),
                       ["tokenizer.json", "No such file"]),
}


class DamagedCheckpoints(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.folder / "whole"
        cls().train(cls.whole, **RUN)
        assert [path.name[-1] for path in checkpoints(cls.whole)] == ["6", "4", "2"]

    def copy(self, name):
        run = self.folder / name.replace(" ", "_").replace("'", "")
        shutil.copytree(self.whole, run)
        return run

    def test_older_good_one_is_used(self):
        for name, (damage, words) in DAMAGES.items():
            with self.subTest(name):
                run = self.copy(name)
                damage(checkpoints(run)[0])
                done = self.train(run, **RUN)
                said = done.stdout + done.stderr
                self.assertIn("warning: ", said)
                for word in ["step-00000006", "not usable", *words]:
                    self.assertIn(word, said)
                self.assertRegex(said, "resumed from .*step-00000004")
                self.assertEqual(results(run), results(self.whole))
                self.assertEqual(self.checksums(run), self.checksums(self.whole))

    def test_a_lost_pointer_is_no_loss(self):
        for name, damage in {"lost": lambda path: path.unlink(),
                             "wrong": lambda path: path.write_text("step-99999999\n")}.items():
            with self.subTest(name):
                run = self.copy("pointer " + name)
                damage(run / "checkpoints" / "LATEST")
                done = self.train(run, **RUN)
                self.assertRegex(done.stdout + done.stderr, "resumed from .*step-00000006")

    def test_none_good(self):
        run = self.copy("none good")
        for checkpoint in checkpoints(run):
            flip_bit(shard(checkpoint), 0.7)
        done = self.train(run, expect=BAD_INPUT, **RUN)
        for step in (2, 4, 6):
            self.assertIn(f"step-{step:08d}", done.stderr)
        self.assertEqual(results(run), results(self.whole))  # what was on record stays there

    def test_bad_one_that_was_asked_for(self):
        for name, (damage, words) in DAMAGES.items():
            with self.subTest(name):
                checkpoint = self.folder / "asked_for"
                shutil.copytree(checkpoints(self.whole)[0], checkpoint)
                damage(checkpoint)
                done = self.train(self.folder / "asking", "--checkpoint", checkpoint,
                                  expect=BAD_INPUT, **RUN)
                commands = [done,
                            self.moebius("inspect", checkpoint, "--checksum"),
                            self.moebius("generate", "--checkpoint", checkpoint, "--prompt", "A")]
                for done in commands:
                    self.assertEqual(done.returncode, BAD_INPUT, done.stdout)
                    if name != "manifest lost":
                        for word in words:
                            self.assertIn(word, done.stderr)
                    self.assertIn(str(checkpoint), done.stderr)
                shutil.rmtree(checkpoint)

    def test_good_one_that_is_asked_for(self):
        run = self.copy("good one")
        done = self.train(run, "--checkpoint", checkpoints(run)[1], **RUN)
        self.assertRegex(done.stdout + done.stderr, "resumed from .*step-00000004")
        self.assertEqual(results(run), results(self.whole))


if __name__ == "__main__":
    unittest.main()
