"use strict";
// Keeps the page up to date: the server sends once a second what has changed.

const button = document.getElementById("state");
let source = null;
let paused = false;

function state(text) {
  button.textContent = text;
  button.className = text;
}

// put fills a cell in, and leaves alone what is the same: a selection, a focus.
function put(td, cell) {
  td.className = cell.c || "";
  td.title = cell.t;
  let at = td;
  if (cell.h) {
    at = td.querySelector("a") || td.replaceChildren() || td.appendChild(document.createElement("a"));
    at.setAttribute("href", cell.h);
  }
  if (at.textContent !== cell.t) at.textContent = cell.t;
}

function table(key, change) {
  const body = document.querySelector("#t-" + key + " tbody");
  const rows = new Map([...body.rows].map((tr) => [tr.dataset.key, tr]));
  for (const [name, cells] of Object.entries(change.rows || {})) {
    let tr = rows.get(name);
    if (!tr) {
      tr = document.createElement("tr");
      tr.dataset.key = name;
      rows.set(name, tr);
    }
    for (const [i, cell] of Object.entries(cells)) {
      while (tr.cells.length <= i) tr.insertCell();
      put(tr.cells[i], cell);
    }
  }
  if (change.order) {
    const wanted = change.order.map((name) => rows.get(name)).filter(Boolean);
    for (const tr of [...body.rows]) if (!wanted.includes(tr)) tr.remove();
    wanted.forEach((tr, i) => {
      if (body.rows[i] !== tr) body.insertBefore(tr, body.rows[i] || null);
    });
    body.closest("section").querySelector(".empty").hidden = wanted.length > 0;
  }
  document.getElementById("n-" + key).textContent = change.note;
}

function show(delta) {
  if (delta.lead) {
    document.getElementById("lead").replaceChildren(...delta.lead.map((line) => {
      const p = document.createElement("p");
      put(p, line);
      p.removeAttribute("title");
      return p;
    }));
  }
  for (const [key, figure] of Object.entries(delta.figures || {})) {
    const div = document.getElementById("f-" + key);
    if (!div) continue;
    div.className = figure.c;
    div.querySelector("dd").textContent = figure.v;
    div.querySelector("small").textContent = figure.n;
    div.querySelector("polyline").setAttribute("points", figure.s);
  }
  for (const [key, change] of Object.entries(delta.tables || {})) table(key, change);
  document.getElementById("footer").textContent = delta.footer;
}

// A page that nobody can see asks for nothing.
function update() {
  const wanted = !paused && !document.hidden;
  if (!wanted && source) {
    source.close();
    source = null;
  }
  if (wanted && !source) {
    const query = new URLSearchParams(location.search);
    query.set("format", "events");
    source = new EventSource("?" + query);
    source.onopen = () => state("live");
    source.onerror = () => state("lost");
    source.onmessage = (event) => show(JSON.parse(event.data));
  }
  if (paused) state("paused");
}

button.hidden = false;
button.title = "click to hold the page still";
button.addEventListener("click", () => {
  paused = !paused;
  update();
});
document.addEventListener("visibilitychange", update);
const json = new URLSearchParams(location.search);
json.set("format", "json");
document.getElementById("json").href = "?" + json;
update();
