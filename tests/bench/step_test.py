#!/usr/bin/env python3
"""The benchmark of whole steps: its numbers agree with each other, whatever they are."""
import json
import os
import subprocess
import unittest

PROGRAM = os.path.abspath("tests/bench/step")
RECIPE = "configs/recipes/tiny.textproto"
BAD_INPUT = 2
STEPS = 2


class Step(unittest.TestCase):
    def run_step(self, *arguments):
        return subprocess.run([PROGRAM, "--config", RECIPE, *map(str, arguments)],
                              capture_output=True, text=True, timeout=200, check=False)

    def measure(self, *arguments):
        done = self.run_step("--steps", STEPS, "--warmup", 1, "-o", "json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def assert_consistent(self, measured):
        """Every rate is what it is made of."""
        step, update = measured["step"], measured["update"]
        seconds = sorted(step["seconds"])
        self.assertEqual(len(seconds), STEPS)
        self.assertAlmostEqual(step["best_seconds"], seconds[0])
        self.assertAlmostEqual(step["median_seconds"], sum(seconds) / STEPS)
        bandwidth = measured["limits"]["bytes_per_second"]
        for which in ("best", "median"):
            time = step[f"{which}_seconds"]
            self.assertAlmostEqual(measured["tokens_per_second"][which] * time,
                                   measured["tokens"], places=6)
            self.assertAlmostEqual(
                measured["mfu"][which] * measured["peak_flops_per_second"] * time,
                measured["flops"], delta=1e-6 * measured["flops"])
            self.assertAlmostEqual(measured["roofline"]["share"][which] * time,
                                   measured["roofline"]["seconds"], places=6)
            rate = update["bytes_per_second"][which]
            self.assertAlmostEqual(rate * update[f"{which}_seconds"], update["bytes"],
                                   delta=1e-6 * update["bytes"])
            self.assertAlmostEqual(update["share_of_bandwidth"][which] * bandwidth, rate,
                                   delta=1e-6 * rate)
            self.assertGreater(measured["without_update"][f"{which}_seconds"], 0)
        self.assertLess(measured["without_update"]["best_seconds"], step["median_seconds"])

    def assert_ops_fill_the_step(self, measured):
        ops = measured["ops"]
        seconds = [op["seconds"] for op in ops]
        self.assertEqual(seconds, sorted(seconds, reverse=True))
        mean = sum(measured["step"]["seconds"]) / STEPS
        self.assertLessEqual(sum(seconds), mean * 1.0001)
        self.assertGreater(sum(seconds), mean / 2)
        for op in ops:
            self.assertGreater(op["share_of_limit"], 0, op)
        least = sum(op["share_of_limit"] * op["seconds"] for op in ops)
        self.assertAlmostEqual(measured["roofline"]["seconds"], least)

    def test_numbers_agree(self):
        for precision in ("fp32", "bf16"):
            measured = self.measure("--precision", precision)
            self.assertEqual(measured["precision"], precision.upper())
            self.assertEqual(measured["tokens"], 16 * 32)
            self.assertEqual(measured["peak_flops_per_second"],
                             measured["limits"][f"{precision}_flops_per_second"])
            self.assertGreater(measured["peak_bytes"]["device"], 0)
            self.assert_consistent(measured)
            self.assert_ops_fill_the_step(measured)

    def test_the_update_reads_and_writes_each_parameter(self):
        # Embedding and head 257 x 32 each; 2 layers: attention 3072, 9 experts of 3 x 32 x 32,
        # router 256, two norms of 32; the last norm 32.
        multiplied = 257 * 32 + 2 * (3072 + 9 * 3072 + 256)
        parameters = multiplied + 257 * 32 + 2 * 64 + 32
        images = self.measure()["update"]["bytes"] - parameters * 7 * 4
        # Both images of each weight that is multiplied, which are filled up to whole panels.
        self.assertGreaterEqual(images, 2 * 4 * multiplied)
        self.assertLess(images, 2 * 2 * 4 * multiplied)

    def test_ranks_share_the_step(self):
        alone = self.measure("--threads", 1)
        for layout in ("expert_size=2", "zero_stage=3"):
            both = self.measure("--ranks", 2, "--threads", 1, "--set", f"parallel.{layout}")
            self.assertEqual((both["ranks"], both["threads_per_rank"]), (2, 1))
            for key in ("tokens", "flops"):
                self.assertEqual(both[key], alone[key], key)
            self.assert_consistent(both)

    def test_text(self):
        done = self.run_step("--steps", 1, "--warmup", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        for row in ("device", "limits", "step ms", "tokens/s", "MFU %", "roofline %",
                    "update alone ms", "adamw"):
            self.assertRegex(done.stdout, rf"(?m)^{row} ")

    def test_mistakes_of_the_user(self):
        for wrong, sentence in ((("--precision", "fp8"), "--precision"),
                                (("--steps", 0), "--steps"),
                                (("--set", "train.num_step=1"), 'did you mean "num_steps"?'),
                                (("--ranks", 3), "global_batch_size"),
                                (("--set", "parallel.pipeline_size=2"), "pipeline_size")):
            done = self.run_step(*wrong)
            self.assertEqual(done.returncode, BAD_INPUT, done.stderr)
            self.assertIn(sentence, done.stderr)


if __name__ == "__main__":
    unittest.main()
