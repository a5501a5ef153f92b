#!/usr/bin/env python3
"""run.device: what computes, what the log says of it, and that a GPU trains as the CPU does."""
import os
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import PROGRAM, Case, steps  # noqa: E402

EMULATED_GPU = os.path.abspath("kernels/cuda/libmoebius_cuda_emulated.so")
HAS_GPU = os.path.exists("/dev/nvidia0")


class DeviceTest(Case):
    @unittest.skipIf(HAS_GPU, "this machine has a GPU")
    def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(self):
        run = self.folder / "refused"
        done = self.train(run, expect=2, run__device="CUDA")
        self.assertIn("run.device: CUDA asks for a GPU, but none can be used", done.stderr)
        self.assertFalse(run.exists())

    def test_fp64_is_the_cpus(self):
        done = self.train(self.folder / "fp64", expect=2, run__device="CUDA",
                          precision__compute="FP64")
        self.assertIn("FP64 is computed by the CPU", done.stderr)

    @unittest.skipIf(HAS_GPU, "this machine has a GPU")
    def test_auto_says_why_the_cpu_computes(self):
        done = self.train(self.folder / "auto", train__num_steps=1, optimizer__warmup_steps=0)
        self.assertIn("device: CPU (no GPU: ", done.stdout)


class EmulatedGpuTest(Case):
    """The program beside a plugin whose GPU is played by the CPU."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.program = cls.folder / "bin" / "moebius"
        cls.program.parent.mkdir()
        shutil.copy(os.path.realpath(PROGRAM), cls.program)
        shutil.copy(EMULATED_GPU, cls.program.parent / "libmoebius_cuda.so")

    def curve(self, device, precision, *arguments, **values):
        run = self.folder / f"{device}_{precision}_{len(values)}"
        done = self.train(run, *arguments, launch=(self.program,), run__device=device,
                          precision__compute=precision, train__num_steps=4,
                          optimizer__warmup_steps=1, **values)
        self.assertIn(f"device: {device}, as run.device says", done.stdout)
        return [step["loss"] for step in steps(run)]

    def check_curves(self, precision, limit, *arguments, **values):
        cpu = self.curve("CPU", precision, *arguments, **values)
        gpu = self.curve("CUDA", precision, *arguments, **values)
        self.assertEqual(len(cpu), 4)
        self.assertNotEqual(cpu, gpu, "not a bit differs: both computed on one device?")
        for ours, theirs in zip(cpu, gpu):
            self.assertLess(abs(ours - theirs) / ours, limit)

    def test_a_gpu_trains_as_the_cpu_does(self):
        self.check_curves("FP32", 1e-5)
        self.check_curves("BF16", 1e-2)

    def test_ranks_that_share_a_gpu_train_as_those_on_cores(self):
        self.check_curves("FP32", 1e-5, "--ranks", 2, parallel__expert_size=2)


if __name__ == "__main__":
    unittest.main()
