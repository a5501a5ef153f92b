#!/usr/bin/env python3
"""optimizer.moments_tier: the same run wherever the moments are, also where it changes on the way."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import Case, checkpoints, results, steps  # noqa: E402

RUN = {"train__num_steps": 6, "optimizer__schedule": "CONSTANT", "optimizer__warmup_steps": 0}
DEVICE, HOST = {"optimizer__moments_tier": "DEVICE"}, {"optimizer__moments_tier": "HOST"}


class MemoryTiers(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.one = cls.folder / "one"
        cls().train(cls.one, **RUN, **DEVICE)

    def assert_as_one(self, run):
        """Bit for bit the numbers and the last checkpoint of the run that was not interrupted."""
        self.assertEqual(results(run), results(self.one))
        self.assertEqual(self.checksums(checkpoints(run)[0]),
                         self.checksums(checkpoints(self.one)[0]))

    def test_the_host_has_them(self):
        run = self.folder / "host"
        self.train(run, **RUN, **HOST)
        self.assert_as_one(run)
        beside, apart = steps(self.one)[0], steps(run)[0]
        moved = apart["host_peak_bytes"] - beside["host_peak_bytes"]
        self.assertGreater(moved, 0)
        self.assertEqual(beside["peak_bytes"] - apart["peak_bytes"], moved)

    def test_a_run_goes_on_with_them_elsewhere(self):
        for name, before, after in (("to_host", DEVICE, HOST), ("to_device", HOST, DEVICE)):
            with self.subTest(name):
                run = self.folder / name
                self.train(run, **{**RUN, "train__num_steps": 3}, **before)
                done = self.train(run, **RUN, **after)
                self.assertIn("resumed from", done.stdout + done.stderr)
                self.assert_as_one(run)

    def test_ranks_share_them_out(self):
        whole = {**RUN, "parallel__zero_stage": 3}
        for name, tier in (("zero_device", DEVICE), ("zero_host", HOST)):
            self.train(self.folder / name, "--ranks", 2, **whole, **tier)
        self.assertEqual(results(self.folder / "zero_host"), results(self.folder / "zero_device"))
        self.assertEqual(self.checksums(checkpoints(self.folder / "zero_host")[0]),
                         self.checksums(checkpoints(self.folder / "zero_device")[0]))

    def test_the_hosts_budget(self):
        done = self.train(self.folder / "budget", expect=1, run__host_memory_bytes=100000, **RUN,
                          **HOST)
        self.assertRegex(done.stderr, r"(?m)^moebius: host memory: optimizer\.[mv] needs \d+ "
                         r"bytes, but \d+ of the budget of 100000 are in use$")

    def test_there_is_no_other_tier(self):
        done = self.train(self.folder / "disk", expect=2, optimizer__moments_tier="DISK", **RUN)
        self.assertIn("optimizer.moments_tier: DISK is not allowed, must be one of DEVICE, HOST",
                      done.stderr)


if __name__ == "__main__":
    unittest.main()
