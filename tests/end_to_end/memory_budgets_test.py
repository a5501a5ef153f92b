#!/usr/bin/env python3
"""A run that needs more memory than it may use fails, says for what, and goes on with more."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, checkpoints, status, steps  # noqa: E402

FAILED = 1
RUN = {"train__num_steps": 6, "checkpoint__interval_steps": 2}


class MemoryBudgets(Case):
    def assert_fails(self, run, sentence, *arguments, **budget):
        """Exit code 1, with the sentence both on the console and in status.json."""
        done = self.train(run, *arguments, expect=FAILED, **RUN, **budget)
        self.assertRegex(done.stderr, rf"(?m)^moebius: {sentence}$")
        self.assertEqual(status(run)["state"], "failed")
        self.assertEqual(status(run)["exit_code"], FAILED)
        self.assertRegex(status(run)["exit_reason"], rf"^{sentence}$")
        return done

    def assert_goes_on(self, run, *arguments):
        self.train(run, *arguments, **RUN)
        self.assert_complete(run, RUN["train__num_steps"])
        self.assertEqual(status(run)["state"], "done")
        self.assertEqual(status(run)["exit_reason"], "")

    def test_device_too_small_for_the_model(self):
        run = self.folder / "model"
        self.assert_fails(run, r"device memory: \S+ needs \d+ bytes, but \d+ of the budget of "
                          "100000 are in use", run__device_memory_bytes=100000)
        self.assertFalse((run / "metrics.jsonl").exists())
        self.assert_goes_on(run)

    def test_device_too_small_for_a_step(self):
        whole = self.folder / "whole"
        self.train(whole, **RUN)
        peak = steps(whole)[0]["peak_bytes"]
        self.train(self.folder / "enough", **RUN, run__device_memory_bytes=2 * peak)

        run = self.folder / "step"
        budget = peak - 1
        done = self.assert_fails(run, r"device memory: \S+ needs \d+ bytes, but \d+ of the budget "
                                 rf"of {budget} are in use", run__device_memory_bytes=budget)
        for name in ("parameters", "gradients", "optimizer.m"):  # the table of what is there
            self.assertRegex(done.stderr, rf"(?m)^  {name} +\d+$")
        self.assertEqual(steps(run), [])
        self.assert_goes_on(run)

    def test_one_of_the_ranks_that_are_threads(self):
        run = self.folder / "threads"
        self.assert_fails(run, r"device memory: .* 100000 are in use", "--ranks", 2,
                          run__device_memory_bytes=100000)
        self.assert_goes_on(run, "--ranks", 2)

    def test_host_too_small_for_a_checkpoint(self):
        run = self.folder / "host"
        self.assert_fails(run, r"host memory: checkpoint.snapshot needs \d+ bytes, but \d+ of the "
                          "budget of 50000 are in use", run__host_memory_bytes=50000)
        self.assert_complete(run, 2)  # to where it should have been saved
        self.assertEqual(checkpoints(run), [])
        self.assert_goes_on(run)


if __name__ == "__main__":
    unittest.main()
