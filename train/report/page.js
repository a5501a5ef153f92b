"use strict";

const run = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#2f6fb3", "#d1702a", "#3b8f4c", "#a4479d", "#b0362f", "#4f8f9c", "#8a7a2c", "#6b5bb5"];

function add(parent, tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

const byId = (id) => document.getElementById(id);
const last = (list) => list[list.length - 1];
const number = (value, digits) => value === null || value === undefined ? "-" :
  value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

function points(key) {
  return run.steps.step.map((step, i) => ({ x: step, y: run.steps[key][i] }));
}

// lines: {label, data, right: whether it is measured on the right axis}
function drawChart(parent, title, lines, options = {}) {
  const canvas = add(add(parent, "div", undefined, "chart"), "canvas");
  const scales = { x: { type: "linear", title: { display: true, text: "step" }, min: 0 } };
  scales.y = { type: options.logarithmic ? "logarithmic" : "linear" };
  if (lines.some((line) => line.right)) scales.right = { position: "right", grid: { display: false } };
  const dots = lines.every((line) => line.data.length <= 30) ? 2 : 0;
  new Chart(canvas, {
    type: "line",
    data: {
      datasets: lines.map((line, i) => ({
        label: line.label, data: line.data, yAxisID: line.right ? "right" : "y",
        borderColor: COLOURS[i % COLOURS.length], backgroundColor: COLOURS[i % COLOURS.length],
        borderWidth: 1.5, pointRadius: dots,
      })),
    },
    options: {
      animation: false, parsing: false, maintainAspectRatio: false, scales,
      interaction: { mode: "nearest", axis: "x", intersect: false },
      plugins: {
        title: { display: true, text: title, align: "start" },
        legend: { display: lines.length > 1, labels: { boxWidth: 12 } },
      },
    },
  });
}

function drawState() {
  const status = run.status;
  let text = status ? `${status.state} after step ${status.step} of ${status.num_steps}` : "no status.json";
  if (status && status.attempt > 1) text += `, attempt ${status.attempt}`;
  if (status && status.exit_reason) text += `: ${status.exit_reason}`;
  if (run.stride > 1) text += ` · curves show every ${run.stride}th record`;
  if (run.unreadable_lines > 0) text += ` · ${run.unreadable_lines} lines of metrics.jsonl are not readable`;
  byId("state").textContent = text;
}

function drawTiles() {
  const speeds = run.steps.tokens_per_second.filter((speed) => speed !== null).sort((a, b) => a - b);
  const shares = run.steps.mfu.filter((share) => share !== null).sort((a, b) => a - b);
  const median = (list) => list[Math.floor(list.length / 2)];
  const mean = meanBitsPerByte(lastStepOfEvaluations());
  for (const [name, value] of [
    ["last loss", number(last(run.steps.loss), 4)],
    ["bits per byte, mean of domains", number(mean, 3)],
    ["tokens seen", number(last(run.steps.tokens), 0)],
    ["tokens/s, median", number(median(speeds), 0)],
    ["MFU, median", number(100 * median(shares), 1) + " %"],
    ["peak memory of a rank", number(last(run.steps.peak_bytes) / 2 ** 20, 0) + " MiB"],
    ["beside it, on the host", number(last(run.steps.host_peak_bytes) / 2 ** 20, 0) + " MiB"],
  ]) {
    const tile = add(byId("tiles"), "div", undefined, "tile");
    add(tile, "b", value);
    add(tile, "span", name);
  }
}

function drawTraining() {
  const parent = byId("training");
  drawChart(parent, "loss (nats per token)", [{ label: "loss", data: points("loss") }]);
  drawChart(parent, "auxiliary losses", [
    { label: "balance loss", data: points("balance_loss") },
    { label: "z-loss", data: points("z_loss"), right: true },
  ]);
  drawChart(parent, "gradient norm", [{ label: "gradient norm", data: points("grad_norm") }], { logarithmic: true });
  drawChart(parent, "learning rate", [{ label: "learning rate", data: points("lr") }]);
  drawChart(parent, "throughput", [
    { label: "tokens/s", data: points("tokens_per_second") },
    { label: "MFU", data: points("mfu"), right: true },
  ]);
  drawChart(parent, "expert load, largest over mean", [
    { label: "max/mean", data: points("expert_load_max_over_mean") },
  ]);
}

const domains = [...new Set(run.evaluations.map((record) => record.domain))];
const lastStepOfEvaluations = () => Math.max(0, ...run.evaluations.map((record) => record.step));

function meanBitsPerByte(step) {
  const values = run.evaluations.filter((record) => record.step === step).map((record) => record.bits_per_byte);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

function drawEvaluations() {
  if (domains.length === 0) return byId("evaluation-section").remove();
  const table = byId("domains");
  const head = add(table, "tr");
  for (const title of ["domain", "first", "best", "last", "last loss"]) add(head, "th", title);
  for (const domain of domains) {
    const records = run.evaluations.filter((record) => record.domain === domain);
    const best = Math.min(...records.map((record) => record.bits_per_byte));
    const row = add(table, "tr");
    add(row, "td", domain);
    for (const value of [records[0].bits_per_byte, best, last(records).bits_per_byte, last(records).loss]) {
      add(row, "td", number(value, 3));
    }
  }
  const first = Math.min(...run.evaluations.map((record) => record.step));
  const mean = add(table, "tr");
  for (const value of ["mean of domains", number(meanBitsPerByte(first), 3), "",
                       number(meanBitsPerByte(lastStepOfEvaluations()), 3), ""]) add(mean, "td", value);
  drawChart(byId("evaluation"), "bits per byte of raw text", domains.map((domain) => ({
    label: domain,
    data: run.evaluations.filter((record) => record.domain === domain)
      .map((record) => ({ x: record.step, y: record.bits_per_byte })),
  })));
}

// White at the mean load; blue below it, to nothing at all; red above it, to four times the mean.
function loadColour(relative) {
  const away = relative < 1 ? 1 - relative : Math.min(1, Math.log2(relative) / 2);
  const far = relative < 1 ? [33, 90, 160] : [176, 38, 28];
  return far.map((channel) => Math.round(255 + (channel - 255) * away));
}

function drawLoad({ layer, rows }) {
  const numExperts = rows[0].length;
  const line = add(byId("loads"), "div", undefined, "load");
  add(line, "span", `layer ${layer}`);
  const canvas = add(line, "canvas");
  canvas.width = rows.length;
  canvas.height = numExperts;
  canvas.style.height = `${Math.max(40, Math.min(240, 10 * numExperts))}px`;
  const context = canvas.getContext("2d");
  rows.forEach((row, x) => row.forEach((relative, expert) => {
    context.fillStyle = `rgb(${loadColour(relative).join(",")})`;
    context.fillRect(x, expert, 1, 1);
  }));
  canvas.addEventListener("mousemove", (event) => {
    const x = Math.min(rows.length - 1, Math.floor(event.offsetX / canvas.clientWidth * rows.length));
    const expert = Math.min(numExperts - 1, Math.floor(event.offsetY / canvas.clientHeight * numExperts));
    canvas.title = `step ${run.load_steps[x]}, expert ${expert}: ${number(rows[x][expert], 2)} x mean`;
  });
}

function drawLoads() {
  if (run.loads.length === 0) return byId("load-section").remove();
  for (const relative of [0, 0.5, 1, 2, 4]) {
    add(byId("legend"), "i").style.background = `rgb(${loadColour(relative).join(",")})`;
    add(byId("legend"), "span", `${relative}${relative === 4 ? " or more" : ""}`);
  }
  run.loads.forEach(drawLoad);
}

for (const name of ["sample", "config"]) {
  if (!run[`has_${name}`]) byId(`${name}-section`).remove();
}
drawState();
drawTiles();
drawTraining();
drawEvaluations();
drawLoads();
