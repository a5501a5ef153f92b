#!/usr/bin/env python3
"""run.device: what computes, what the log says of it, and that a GPU trains as the CPU does."""
import os
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import PROGRAM, Case, checkpoints, results, steps  # noqa: E402

FAKE_NCCL = os.path.abspath("kernels/cuda/emulation/libnccl_fake.so")
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

        cls.nccl = cls.folder / "nccl"
        cls.nccl.mkdir()
        shutil.copy(FAKE_NCCL, cls.nccl / "libnccl.so.2")

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

    def test_moments_on_the_host_and_back(self):
        """Each step with them elsewhere than the one before: the bits of a run without that."""
        plain, moving = self.folder / "plain", self.folder / "moving"
        values = {"launch": (self.program,), "run__device": "CUDA", "precision__compute": "BF16",
                  "optimizer__schedule": "CONSTANT", "optimizer__warmup_steps": 0}
        self.train(plain, train__num_steps=3, **values)
        for step, tier in enumerate(("DEVICE", "HOST", "DEVICE"), 1):
            self.train(moving, train__num_steps=step, optimizer__moments_tier=tier, **values)
        self.assertEqual(results(moving), results(plain))
        self.assertEqual(self.checksums(checkpoints(moving)[0]),
                         self.checksums(checkpoints(plain)[0]))

    def test_ranks_that_share_a_gpu_train_as_those_on_cores(self):
        self.check_curves("FP32", 1e-5, "--ranks", 2, parallel__expert_size=2)

    def two_ranks(self, gpus, nccl, **values):
        """Training on 2 ranks that see so many GPUs, with a folder where NCCL may be."""
        environment = {**os.environ, "MOEBIUS_EMULATED_GPUS": str(gpus),
                       "LD_LIBRARY_PATH": str(nccl)}
        run = self.folder / f"two_ranks_{gpus}_{nccl.name}_{'_'.join(values)}"
        done = self.train(run, "--ranks", 2, launch=(self.program,), run__device="CUDA",
                          train__num_steps=4, optimizer__warmup_steps=1,
                          options={"env": environment},
                          **{"precision__compute": "FP32", **values})
        return done.stdout, [step["loss"] for step in steps(run)]

    def test_ranks_with_a_gpu_each_exchange_by_nccl_what_others_exchange_by_the_host(self):
        for values in ({"parallel__expert_size": 2}, {"parallel__tensor_size": 2},
                       {"parallel__zero_stage": 3}, {"parallel__pipeline_size": 2}):
            with self.subTest(**values):
                by_nccl, ours = self.two_ranks(2, self.nccl, **values)
                by_host, theirs = self.two_ranks(1, self.nccl, **values)
                self.assertIn("exchanges: NCCL 2.28.9, as every rank has a GPU of its own", by_nccl)
                self.assertIn("exchanges: by way of the host's memory (ranks share a GPU", by_host)
                self.assertEqual(ours, theirs, "sums are taken in one order, wherever")

    def test_experts_on_two_gpus_train_as_on_cores(self):
        _, gpu = self.two_ranks(2, self.nccl, parallel__expert_size=2, run__threads_per_rank=1)
        cpu = self.curve("CPU", "FP32", "--ranks", 2, parallel__expert_size=2)
        for ours, theirs in zip(gpu, cpu, strict=True):
            self.assertLess(abs(ours - theirs) / theirs, 1e-5)

    def test_without_nccl_the_log_says_so(self):
        broken = self.folder / "broken"
        broken.mkdir()
        (broken / "libnccl.so.2").write_text("not a library")
        log, _ = self.two_ranks(2, broken, parallel__expert_size=2)
        self.assertRegex(log, r"by way of the host's memory \(no NCCL on rank 0: .*libnccl.so.2")


if __name__ == "__main__":
    unittest.main()
