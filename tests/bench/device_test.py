#!/usr/bin/env python3
"""The benchmarks that run on a GPU, on one that the CPU plays: they start, and their numbers agree
with each other, whatever they are."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

PROGRAMS = ("layer", "ops", "step")
EMULATED_GPU = "kernels/cuda/libmoebius_cuda_emulated.so"
RECIPE = "configs/recipes/tiny.textproto"
BAD_INPUT = 2


class DeviceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for program in PROGRAMS:
            shutil.copy(os.path.realpath(f"tests/bench/{program}"), cls.folder / program)
        shutil.copy(EMULATED_GPU, cls.folder / "libmoebius_cuda.so")

    def run_program(self, program, *arguments, expect=0, **environment):
        done = subprocess.run([self.folder / program, *map(str, arguments)], capture_output=True,
                              env={**os.environ, **environment}, text=True, timeout=200,
                              check=False)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done

    def assert_limits(self, limits):
        for key in ("fp32_flops_per_second", "bf16_flops_per_second", "bytes_per_second"):
            self.assertGreater(limits[key], 0, key)

    def layers(self, *arguments):
        done = self.run_program("layer", "--shape", "small:32:48:8:2", "--tokens", 64, "--rounds", 2,
                                *arguments)
        machine, *layers = map(json.loads, done.stdout.splitlines())
        self.assert_limits(machine["limits"])
        return machine, layers

    def test_layers(self):
        for device, dtype in (("cpu", "fp32"), ("cuda", "bf16")):
            machine, layers = self.layers("--device", device, "--dtype", dtype, "--skew", 0,
                                          "--skew", 2)
            self.assertEqual("GPU" in machine["device"], device == "cuda")
            self.assertEqual([layer["skew"] for layer in layers], [0, 2])
            for layer in layers:
                self.assertEqual(layer["flops"], 64 * 3 * (6 * 32 * 48 * 2 + 2 * 32 * 8))
                peak = machine["limits"][f"{dtype}_flops_per_second"]
                for which in ("best", "median"):
                    rate = 1e12 * layer["tflops_per_second"][which]
                    self.assertAlmostEqual(layer["share_of_peak"][which] * peak / rate, 1)
                    seconds = layer["milliseconds"][which] / 1e3
                    self.assertAlmostEqual(rate * seconds / layer["flops"], 1)
                self.assertLessEqual(layer["milliseconds"]["best"],
                                     layer["milliseconds"]["median"])
            even, skewed = (layer["largest_load_over_mean"] for layer in layers)
            self.assertGreaterEqual(even, 1)
            self.assertGreater(skewed, even)

    def test_steps(self):
        done = self.run_program("step", "--config", RECIPE, "--set", "run.device=CUDA", "--steps", 2,
                                "--warmup", 1, "--precision", "bf16", "-o", "json")
        measured = json.loads(done.stdout)
        self.assertIn("GPU", measured["device"])
        self.assert_limits(measured["limits"])
        step, update = measured["step"], measured["update"]
        self.assertLess(measured["without_update"]["best_seconds"], step["median_seconds"])
        self.assertGreater(update["best_seconds"], 0)
        # Ops are timed in a step of their own.
        self.assertEqual((len(step["seconds"]), len(measured["ops_seconds"])), (2, 1))
        seconds = sum(op["seconds"] for op in measured["ops"])
        self.assertLessEqual(seconds, measured["ops_seconds"][0] * 1.0001)
        self.assertGreater(seconds, measured["ops_seconds"][0] / 2)

    def test_ops(self):
        done = self.run_program("ops", "--benchmark_filter=^sum_of_squares/BF16",
                                "--benchmark_min_time=0.01", "--benchmark_format=json",
                                MOEBIUS_DEVICE="CUDA")
        result = json.loads(done.stdout)
        self.assertIn("GPU", result["context"]["device"])
        (op,) = result["benchmarks"]
        self.assertGreater(op["GB/s"], 0)
        self.assertGreaterEqual(op["best"], op["share"])

    def test_mistakes_of_the_user(self):
        done = self.run_program("layer", "--shape", "wrong:1:2", expect=BAD_INPUT)
        self.assertIn("wrong:1:2", done.stdout + done.stderr)
        (self.folder / "alone").mkdir()
        shutil.copy(self.folder / "layer", self.folder / "alone")
        done = self.run_program("alone/layer", "--shape", "small:32:48:8:2", "--device", "cuda",
                                expect=BAD_INPUT)
        self.assertIn("libmoebius_cuda.so is not there", done.stderr)


if __name__ == "__main__":
    unittest.main()
