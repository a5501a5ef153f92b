#!/usr/bin/env python3
"""The commands that read what training has left: eval, generate, inspect, report."""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import RECIPE, SMALL, Case, checkpoints, evaluations, settings  # noqa: E402

NUM_STEPS = 30
BAD_INPUT = 2
COMMANDS = ("train", "prepare", "eval", "generate", "inspect", "report", "convert", "plan")


class Commands(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.trained = cls.folder / "trained"
        cls().train(cls.trained, train__num_steps=NUM_STEPS, checkpoint__interval_steps=10)

    def output(self, *arguments):
        done = self.moebius(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def evaluate(self, *arguments):
        fields = {**SMALL, "run.dir": self.folder / "evaluated", "data.dir": self.data}
        return self.output("eval", "--checkpoint", self.trained, "--config", RECIPE,
                           *settings(fields), *arguments)

    def generate(self, *arguments, checkpoint=None):
        return self.output("generate", "--checkpoint", checkpoint or self.trained,
                           "--prompt", "The ", "--max_tokens", 40, *arguments)

    def test_eval_repeats_what_training_said(self):
        trained = evaluations(self.trained, NUM_STEPS)
        rows = [json.loads(line) for line in self.evaluate("-o", "json").splitlines()]
        self.assertEqual([row["domain"] for row in rows], ["fables", "code", "notes"])
        for row in rows:
            for key in ("loss", "bits_per_byte"):
                self.assertEqual(row[key], trained[row["domain"]][key], row)

    def test_eval_on_two_ranks(self):
        trained = evaluations(self.trained, NUM_STEPS)
        for layout in ([], ["--set", "parallel.expert_size=2"]):
            lines = self.evaluate("-o", "json", "--ranks", 2, *layout).splitlines()
            self.assertEqual(len(lines), 3)
            for row in map(json.loads, lines):
                self.assertAlmostEqual(row["loss"], trained[row["domain"]]["loss"], places=4)

    def test_eval_table(self):
        table = self.evaluate()
        for domain, numbers in evaluations(self.trained, NUM_STEPS).items():
            self.assertRegex(table, rf"(?m)^{domain} .*\b{numbers['loss']:.4f}\b")

    def test_generate_is_a_function_of_the_seed(self):
        warm = ("--temperature", 1.5)
        self.assertEqual(self.generate(*warm, "--seed", 1), self.generate(*warm, "--seed", 1))
        self.assertNotEqual(self.generate(*warm, "--seed", 1), self.generate(*warm, "--seed", 2))
        self.assertEqual(self.generate("--seed", 1), self.generate("--seed", 2))  # greedy
        self.assertEqual(self.generate(*warm, "--top_k", 1), self.generate())

    def test_generate_needs_the_checkpoint_alone(self):
        moved = self.folder / "moved"
        moved.mkdir()
        for path in checkpoints(self.trained)[0].iterdir():
            (moved / path.name).write_bytes(path.read_bytes())
        here = self.generate()
        done = self.moebius("generate", "--checkpoint", moved, "--prompt", "The ",
                            "--max_tokens", 40, cwd="/")
        self.assertEqual(done.stdout, here, done.stderr)

    def test_generate_writes_valid_utf8(self):
        for seed in range(3):
            done = self.moebius("generate", "--checkpoint", self.trained, "--prompt", "é",
                                "--temperature", 1000, "--max_tokens", 60, "--seed", seed,
                                encoding="utf-8", errors="strict")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_inspect(self):
        newest = checkpoints(self.trained)[0]
        summary = self.output("inspect", newest)
        self.assertIn(newest.name, summary)
        self.assertRegex(summary, rf"(?m)^step +{NUM_STEPS}$")
        for folder in (self.trained, self.trained / "checkpoints"):
            self.assertIn(newest.name, self.output("inspect", folder))
        lines = self.checksums(newest).splitlines()
        self.assertEqual(lines, sorted(lines))
        self.assertTrue(any(line.startswith("embedding.weight F32 ") for line in lines), lines)
        self.assertNotEqual(lines, self.checksums(checkpoints(self.trained)[1]).splitlines())

    def test_report(self):
        self.output("report", self.trained)
        self.assertIn("<html", (self.trained / "report.html").read_text()[:1000])

    def test_help_and_usage(self):
        self.assertIn("moebius", self.output("--help"))
        self.assertRegex(self.output("--version"), r"^moebius \d+\.\d+")
        for command in COMMANDS:
            self.assertIn("--help", self.output(command, "--help"))
        for wrong in ([], ["frobnicate"], ["train"], ["eval", "--config", RECIPE], ["inspect"],
                      ["generate", "--prompt", "x"], ["report", self.folder / "nowhere"],
                      ["inspect", self.folder / "nowhere"],
                      ["generate", "--checkpoint", self.trained, "--top_p", "2"],
                      ["generate", "--checkpoint", self.trained, "--max_tokens", "-1"]):
            done = self.moebius(*wrong)
            self.assertEqual(done.returncode, BAD_INPUT, wrong)
            self.assertNotEqual(done.stderr, "", wrong)


if __name__ == "__main__":
    unittest.main()
