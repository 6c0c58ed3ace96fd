"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const colors = dark ? ["#58a6ff", "#ff7b72", "#e3b341", "#3fb950"] : ["#0969da", "#cf222e", "#bf8700", "#1a7f37"];
  const boxes = JSON.parse(document.getElementById("charts").textContent);

  // Vertical lines where faults struck.
  const marks = (at) => ({
    hooks: { draw: (u) => {
      u.ctx.save();
      u.ctx.strokeStyle = css("--bad");
      u.ctx.setLineDash([4, 4]);
      for (const t of at || []) {
        const x = Math.round(u.valToPos(t, "x", true));
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
      }
      u.ctx.restore();
    } },
  });

  const number = (v) => v == null ? "" :
    Math.abs(v) >= 1e6 ? +(v / 1e6).toPrecision(3) + "M" :
    Math.abs(v) >= 1e3 ? +(v / 1e3).toPrecision(3) + "k" : String(+v.toPrecision(3));

  function plot(box, chart) {
    const frame = document.createElement("div");
    frame.className = "plot";
    const title = document.createElement("h3");
    title.textContent = chart.title;
    frame.append(title);
    box.append(frame);
    const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    const rank = (v) => v == null ? "" : v <= 1 ? "p0" : "p" + +(100 - 100 / v).toPrecision(6);
    const width = () => Math.max(frame.clientWidth - 26, 200);
    const log = (v) => v && Math.abs(Math.log10(v) % 1) < 1e-9; // only powers of ten are written
    const label = (v) => v == null ? "" : chart.rank ? rank(v) : number(v);
    const logarithmic = { distr: 3 };
    const fromZero = { range: (_, lo, hi) => [Math.min(lo, 0), hi > 0 ? hi * 1.05 : 1] };
    const forms = {
      steps: { paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      points: { paths: () => null, points: { show: true, size: 9 } },
    };
    const form = forms[chart.form] || { points: { show: chart.data[0].length < 3 } };
    const u = new uPlot({
      width: width(), height: 260,
      scales: { x: { time: false, distr: chart.log_x ? 3 : 1 }, y: chart.log_y ? logarithmic : fromZero },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((v) => chart.log_x && !log(v) ? "" : label(v)) },
        { ...axis, size: 58, values: (_, ticks) => ticks.map((v) => v == null || (chart.log_y && !log(v)) ? "" : number(v)) },
      ],
      series: [{ label: chart.x, value: (_, v) => label(v) },
        ...chart.series.map((s, i) => ({ label: s.label, stroke: colors[i % colors.length], width: 1.5, spanGaps: false, ...form, value: (_, v) => v == null ? "" : number(v) }))],
      plugins: [marks(chart.marks)],
    }, chart.data, frame);
    addEventListener("resize", () => u.setSize({ width: width(), height: 260 }));
  }

  for (const [id, charts] of Object.entries(boxes))
    for (const c of charts || []) plot(document.getElementById(id), c);

  const save = document.getElementById("save");
  save.textContent = "The report as JSON";
  save.href = URL.createObjectURL(new Blob([document.getElementById("report").textContent], { type: "application/json" }));
})();
