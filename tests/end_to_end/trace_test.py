#!/usr/bin/env python3
"""A trace of steps: what a viewer needs, what every rank did, and that it changes nothing."""
import collections
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from program import MPIRUN, Case, results  # noqa: E402

BAD_INPUT = 2
ROUNDING = 1e-3  # microseconds
OWN_THREAD = 0
MOST_STEPS = 3  # traced if nothing else is said

# Large enough that ops take longer than what is between them.
LARGER = {"train__num_steps": 8, "train__sequence_length": 64, "model__hidden_size": 64}
MICRO_BATCHES = 4  # of all ranks

LAYOUTS = {
    "experts": ([], {"parallel__expert_size": 2}),
    "pipeline": ([], {"parallel__pipeline_size": 2}),
    "zero_bubble": ([], {"parallel__pipeline_size": 2, "parallel__pipeline_schedule": "ZB_V",
                         "parallel__virtual_pipeline_size": 2, "model__num_layers": 4}),
    "processes": ((MPIRUN, "2", "moebius"), {"parallel__expert_size": 2,
                                             "parallel__zero_stage": 3}),
}


def end(event):
    return event["ts"] + event["dur"]


class Trace:
    """The events of a file, by rank."""

    def __init__(self, path):
        events = json.loads(path.read_text())["traceEvents"]
        self.names = {event["pid"]: event["args"]["name"] for event in events
                      if event["ph"] == "M" and event["name"] == "process_name"}
        self.events = [event for event in events if event["ph"] == "X"]
        self.others = [event for event in events if event["ph"] not in "MX"]

    def of(self, rank, *categories):
        return [event for event in self.events
                if event["pid"] == rank and event["cat"] in categories]

    def rows(self):
        """The events of each row of each rank, parents first."""
        rows = collections.defaultdict(list)
        for event in sorted(self.events, key=lambda e: (e["ts"], -e["dur"])):
            rows[event["pid"], event["tid"]].append(event)
        return rows


class Traces(Case):
    def trace(self, name, *arguments, launch=(), **values):
        """A run that is traced: its trace, and what it printed."""
        path = self.folder / f"{name}.json"
        ranks = [] if launch else ["--ranks", 2]
        done = self.train(self.folder / name, *ranks, "--trace", path, *arguments, launch=launch,
                          **{**LARGER, **values})
        return Trace(path), done.stdout

    def assert_nests(self, trace):
        """Each event lies within the one it began in; exchanges of one row do not overlap."""
        for (_, row), events in trace.rows().items():
            inside = []
            for event in events:
                self.assertGreaterEqual(event["dur"], 0, event)
                while inside and end(inside[-1]) <= event["ts"] + ROUNDING / 2:
                    inside.pop()
                if inside:
                    self.assertEqual(row, OWN_THREAD, (inside[-1], event))
                    self.assertLessEqual(end(event), end(inside[-1]) + ROUNDING,
                                         (inside[-1], event))
                inside.append(event)

    def assert_time_is_accounted_for(self, trace, rank):
        """Ops, starts and waits, each without those inside it, are most of a step."""
        ends = []  # of the ops around
        own = 0
        for event in trace.rows()[rank, OWN_THREAD]:
            if event["cat"] not in ("op", "start", "wait"):
                continue
            while ends and ends[-1] <= event["ts"] + ROUNDING / 2:
                ends.pop()
            own += 0 if ends else event["dur"]
            ends.append(end(event))
        steps = sum(step["dur"] for step in trace.of(rank, "step"))
        self.assertLessEqual(own, steps)
        self.assertGreater(own, 0.4 * steps)

    def test_layouts(self):
        for name, (launch, layout) in LAYOUTS.items():
            with self.subTest(name):
                trace, said = self.trace(name, launch=launch, **layout)
                self.assertEqual(trace.names, {0: "rank 0", 1: "rank 1"})
                self.assertEqual(trace.others, [])
                self.assert_nests(trace)
                for rank in (0, 1):
                    self.assertEqual([step["name"] for step in trace.of(rank, "step")],
                                     ["step 3", "step 4", "step 5"])
                    ops = {op["name"] for op in trace.of(rank, "op")}
                    self.assertLessEqual({"linear", "linear.weight_gradient", "attention",
                                          "adamw"}, ops)
                    self.assert_time_is_accounted_for(trace, rank)
                self.assertIn("trace: steps 3 to 5 of 2 ranks in ", said)
                self.assertRegex(said, r"(?m)^linear +\d+ +\d+\.\d\d +\d+\.\d% +\d+\.\d GFLOP/s$")

    def test_collectives_meet(self):
        trace, _ = self.trace("meet", parallel__expert_size=2)
        calls = [collections.Counter((call["name"], call["args"]["group"], call["args"]["number"])
                                     for call in trace.of(rank, "exchange")) for rank in (0, 1)]
        self.assertEqual(calls[0], calls[1])
        self.assertEqual(set(calls[0].values()), {1})
        self.assertLessEqual({"all-to-all", "all-reduce"}, {name for name, _, _ in calls[0]})
        for rank in (0, 1):
            started = {(call["name"].removeprefix("start "), call["args"]["group"],
                        call["args"]["number"]) for call in trace.of(rank, "start")}
            self.assertEqual(started, set(calls[rank]))

    def test_messages_meet(self):
        trace, _ = self.trace("messages", parallel__pipeline_size=2)
        messages = [{(call["name"], call["args"]["number"]): call["args"]
                     for call in trace.of(rank, "exchange") if "peer" in call["args"]}
                    for rank in (0, 1)]
        self.assertGreaterEqual(len(messages[0]), 2 * MICRO_BATCHES * MOST_STEPS)
        for rank, other in ((0, 1), (1, 0)):
            for (name, number), message in messages[rank].items():
                self.assertEqual(message["peer"], other)
                meets = messages[other][{"send": "receive", "receive": "send"}[name], number]
                self.assertEqual(meets["bytes"], message["bytes"])

    def test_actions_of_a_pipeline(self):
        trace, _ = self.trace("actions", parallel__pipeline_size=2)
        for rank in (0, 1):
            actions = collections.Counter(
                (action["name"].split()[0], action["args"]["micro_batch"])
                for action in trace.of(rank, "pipeline"))
            for micro_batch in range(MICRO_BATCHES):
                for kind in ("forward", "backward"):
                    self.assertEqual(actions[kind, micro_batch], MOST_STEPS, actions)
            phases = {phase["name"] for phase in trace.of(rank, "phase")}
            self.assertLessEqual({"load micro-batches", "forward and backward",
                                  "reduce gradients", "update"}, phases)

    def test_numbers_stay(self):
        plain = self.folder / "plain"
        self.train(plain, "--ranks", 2, **LARGER)
        trace, _ = self.trace("traced", "--trace_steps", 1)
        self.assertEqual(results(self.folder / "traced"), results(plain))
        self.assertEqual([step["name"] for step in trace.of(0, "step")], ["step 3"])

    def test_into_the_run_directory(self):
        run = self.folder / "inside"
        self.train(run, "--trace", run / "trace.json", train__num_steps=1, optimizer__warmup_steps=0)
        self.assertEqual([step["name"] for step in Trace(run / "trace.json").of(0, "step")],
                         ["step 1"])
        again = self.train(run, "--trace", run / "again.json", train__num_steps=1,
                           optimizer__warmup_steps=0)
        self.assertIn("warning: trace: no step was traced", again.stdout)
        self.assertFalse((run / "again.json").exists())

    def test_refused(self):
        for arguments, message in (
                (["--trace", self.folder / "nowhere" / "trace.json"],
                 f"moebius: --trace: {self.folder}/nowhere/trace.json: cannot create: "
                 "No such file or directory\n"),
                (["--trace", self.folder], f"moebius: --trace: {self.folder} is not a file\n"),
                (["--trace", "/dev/null"], "moebius: --trace: /dev/null is not a file\n"),
                (["--trace_steps", 2], "--trace_steps requires --trace\n"),
                (["--trace", self.folder / "a.json", "--trace_steps", 0], "--trace_steps")):
            with self.subTest(arguments):
                run = self.folder / "refused"
                done = self.train(run, *arguments, expect=BAD_INPUT)
                self.assertIn(message, done.stderr)
                self.assertFalse((run / "metrics.jsonl").exists())


if __name__ == "__main__":
    unittest.main()
