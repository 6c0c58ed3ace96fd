"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colors = ["#0969da", "#cf222e", "#bf8700", "#1a7f37", "#8250df", "#59636e"];
  const runs = JSON.parse(document.getElementById("charts").textContent);

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
    const u = new uPlot({
      width: width(), height: 260,
      scales: { x: { time: false, distr: chart.log ? 3 : 1 }, y: chart.log ? { distr: 3 } : { range: (_, lo, hi) => [Math.min(lo, 0), hi > 0 ? hi * 1.05 : 1] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(chart.log ? (v) => v && Math.log10(v) % 1 === 0 ? rank(v) : "" : number) },
        { ...axis, size: 58, values: (_, ticks) => ticks.map((v) => v == null || (chart.log && Math.abs(Math.log10(v) % 1) > 1e-9) ? "" : number(v)) },
      ],
      series: [{ label: chart.x, value: (_, v) => chart.log ? rank(v) : v == null ? "" : String(v) },
        ...chart.series.map((s, i) => ({ label: s.label, stroke: colors[i % colors.length], width: 1.5, points: { show: chart.data[0].length < 3 }, value: (_, v) => v == null ? "" : number(v) }))],
      plugins: [marks(chart.marks)],
    }, chart.data, frame);
    addEventListener("resize", () => u.setSize({ width: width(), height: 260 }));
  }

  runs.forEach((charts, n) => {
    const box = document.getElementById("plots" + n);
    for (const c of charts || []) plot(box, c);
  });

  const save = document.getElementById("save");
  save.textContent = "The report as JSON";
  save.href = URL.createObjectURL(new Blob([document.getElementById("report").textContent], { type: "application/json" }));
})();
