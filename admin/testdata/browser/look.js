// Opens the pages as an operator does. Usage: node look.js CHROMIUM URL TOKEN HOSTILE [DIRECTORY]
// HOSTILE is the name of a method that a peer has chosen. Pictures go to DIRECTORY.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [executablePath, url, token, hostile, shots] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
const faults = [];

// context returns a browser's window that notes whatever should not be.
async function context(options = {}) {
  const c = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  c.on("page", (page) => {
    page.on("console", (m) => { if (m.type() === "error" || m.type() === "warning") faults.push(`${page.url()}: console: ${m.text()}`); });
    page.on("pageerror", (e) => faults.push(`${page.url()}: ${e.message}`));
    page.on("dialog", (d) => { faults.push(`${page.url()}: a dialog: ${d.message()}`); d.dismiss(); });
    page.on("request", (r) => { if (!r.url().startsWith(url + "/")) faults.push(`asks ${r.url()}`); });
    page.on("response", (r) => { if (r.status() >= 400) faults.push(`${r.url()}: ${r.status()}`); });
  });
  return c;
}

async function open(c, path) {
  const page = await c.newPage();
  await page.goto(url + path);
  assert.notEqual(await page.title(), "stolen", `${path}: the hostile name has run a script`);
  return page;
}

// column returns the texts of a table's column; a click may have begun to load the page.
async function column(page, table, n) {
  await page.waitForLoadState();
  return page.locator(`#t-${table} tbody tr td:nth-child(${n})`).allTextContents();
}

const json = async (path) => (await (await fetch(`${url}${path}${path.includes("?") ? "&" : "?"}format=json`)).json()).data;

// changes waits until an element has another text.
async function changes(page, selector) {
  const before = await page.locator(selector).first().textContent();
  await page.waitForFunction(([s, was]) => document.querySelector(s).textContent !== was, [selector, before], { timeout: 15000 });
}

async function step(name, f) {
  const began = Date.now();
  await f();
  assert.deepEqual(faults, [], name);
  console.log(`${name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
}

const c = await context();
const stuck = (await json("/streams?on=reader&sort=blocked")).rows[0];
const busy = (await json("/streams?method=echo&sort=rate")).rows[0];

await step("every page is live", async () => {
  const paths = ["/", "/streams", "/streams?sort=rate", `/streams/${busy.id}`, "/conns", `/conns/${busy.conn}`, "/loops", "/closed", "/methods", "/config"];
  await Promise.all(paths.map(async (path) => {
    const page = await open(c, path);
    await page.waitForFunction(() => document.getElementById("state").textContent === "live");
    await changes(page, "#footer");
    await page.close();
  }));
});

await step("figures and rows change under load", async () => {
  const page = await open(c, "/");
  assert.equal(await page.locator("#f-streams dd").textContent().then((t) => t >= "10,0"), true);
  await changes(page, "#f-in dd");
  await page.waitForFunction(() => document.querySelector("#f-in polyline").getAttribute("points").split(" ").length > 2);
  await page.goto(url + "/streams?sort=messages");
  const widths = () => page.$$eval("#t-streams thead th", (ths) => ths.map((th) => [th.offsetLeft, th.offsetWidth]));
  const before = await widths();
  await changes(page, "#t-streams tbody tr:first-child td:nth-child(13)");
  await changes(page, "#t-streams tbody tr:first-child td:nth-child(13)");
  assert.deepEqual(await widths(), before, "columns have moved");
  const heights = await page.$$eval("#t-streams tbody tr", (trs) => [...new Set(trs.map((tr) => tr.offsetHeight))]);
  assert.ok(Math.max(...heights) - Math.min(...heights) <= 1, `rows are ${heights} high`);
  await page.close();
});

await step("nothing jumps, and no figure is cut", async () => {
  for (const path of ["/", "/streams", "/streams?q=echo", `/streams/${busy.id}`, "/conns", `/conns/${busy.conn}`, "/methods"]) {
    const page = await open(c, path);
    const places = () => page.$$eval("h2", (hs) => hs.map((h) => h.offsetTop));
    const before = await places();
    for (let i = 0; i < 3; i++) await changes(page, "#footer");
    assert.deepEqual(await places(), before, `${path}: tables have moved`);
    const cut = await page.$$eval(".figures dt, .figures dd, .figures small, td.n", (es) => es.filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent));
    assert.deepEqual(cut, [], `${path}: cut`);
    await page.close();
  }
});

await step("a stuck reader among 10,000 streams in three clicks", async () => {
  const page = await open(c, "/");
  await page.locator("#t-blocked tbody a", { hasText: "reader" }).first().click();
  assert.match(page.url(), /on=reader/);
  assert.equal((await column(page, "streams", 2))[0], "shop.Orders/Watch");
  await page.locator("#t-streams tbody tr:first-child td:nth-child(1) a").click();
  assert.match(await page.locator("#lead").textContent(), /blocked on reader .* since .*, and waits for this program, to read shop.Orders\/Watch/);
  await page.locator("#t-facts a").click();
  assert.match(await page.locator("h1").textContent(), /^Connection \d+/);
  assert.ok((await column(page, "streams", 1)).includes(stuck.id));
  await page.close();
});

await step("sort and filter", async () => {
  const page = await open(c, "/streams");
  assert.equal((await column(page, "streams", 1)).length, 200);
  await page.locator("#t-streams thead a", { hasText: "messages" }).click();
  await page.waitForURL(/sort=messages/);
  let counts = (await column(page, "streams", 13)).map((t) => Number(t.replaceAll(",", "")));
  assert.ok(counts[0] > 0 && counts[0] >= counts[199], `the first has ${counts[0]}`);
  await page.locator("#t-streams thead a", { hasText: "messages" }).click();
  await page.waitForURL(/up=1/);
  assert.equal((await column(page, "streams", 13))[0], "0");
  await page.goto(url + "/streams");
  await page.locator("input[type=search]").fill("eCHo");
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=eCHo/);
  assert.deepEqual([...new Set(await column(page, "streams", 2))], ["echo"]);
  await changes(page, "#footer");
  await changes(page, "#footer");
  assert.deepEqual([...new Set(await column(page, "streams", 2))], ["echo"]);
  await page.locator("select[name=on]").selectOption("reader");
  await page.locator("form.filter button").click();
  await page.waitForURL(/on=reader/);
  await page.locator(".empty", { hasText: "No open stream matches." }).waitFor();
  await page.locator("a", { hasText: "clear" }).click();
  await page.locator(".more a", { hasText: "next" }).click();
  await page.waitForURL(/offset=200/);
  assert.match(await page.locator("#n-streams").textContent(), /^201 to 400 of 10,0/);
  await page.close();
});

await step("a hostile name is text", async () => {
  const shown = hostile.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b");
  for (const [path, table, n] of [["/streams?sort=blocked&on=acceptance", "streams", 2], ["/methods", "methods", 1]]) {
    const page = await open(c, path);
    assert.ok((await column(page, table, n)).includes(shown), `${path} has not the name as it is`);
    await changes(page, "#footer");
    assert.ok((await column(page, table, n)).includes(shown), `${path} has not the name as it is, live`);
    await page.locator(`#t-${table} tbody a`).first().hover();
    await page.close();
  }
  const [row] = (await json("/streams?on=acceptance")).rows;
  assert.equal(row.method, hostile);
  const page = await open(c, `/streams/${row.id}`);
  assert.ok((await page.locator("h1").textContent()).endsWith(shown));
  await page.close();
});

await step("held still, and hidden", async () => {
  const page = await open(c, "/");
  await changes(page, "#footer");
  await page.locator("#state").click();
  assert.equal(await page.locator("#state").textContent(), "paused");
  const text = await page.locator("main").textContent();
  await page.waitForTimeout(2500);
  assert.equal(await page.locator("main").textContent(), text);
  await page.locator("#state").click();
  await changes(page, "#footer");
  await page.close();
});

await step("without JavaScript", async () => {
  const plain = await context({ javaScriptEnabled: false });
  const page = await open(plain, "/");
  assert.ok((await column(page, "blocked", 1)).includes("reader"));
  assert.match(await page.content(), /<noscript><meta http-equiv="refresh" content="5">/);
  await page.locator("nav a", { hasText: "streams" }).click();
  assert.equal((await column(page, "streams", 1)).length, 200);
  await page.locator("#t-streams thead a", { hasText: "mailbox" }).click();
  assert.notEqual((await column(page, "streams", 7))[0], "0");
  await page.locator("input[type=search]").fill("echo");
  await page.locator("form.filter button").click();
  assert.equal((await column(page, "streams", 2))[0], "echo");
  await plain.close();
});

await step("light and dark, wide and narrow", async () => {
  const backs = new Set();
  const page = await c.newPage();
  for (const path of ["/", "/streams", `/streams/${stuck.id}`, "/conns", "/methods", "/closed"]) {
    await page.goto(url + path);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      backs.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    }
    for (const width of [400, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(scroll <= client, `${path} is ${scroll} wide in ${client}`);
    }
  }
  assert.equal(backs.size, 2);
  await page.close();
});

await step("pictures", async () => {
  if (!shots) return;
  for (const [name, path, colorScheme, width, height] of [
    ["overview", "/", "light", 1280, 440], ["streams", "/streams", "dark", 1440, 480],
    ["stream", `/streams/${stuck.id}`, "light", 1000, 560], ["narrow", "/", "dark", 400, 640],
  ]) {
    const d = await context({ colorScheme, viewport: { width, height } });
    const page = await open(d, path);
    await page.waitForTimeout(path === "/" ? 20000 : 6000); // for the lines of the figures
    await page.screenshot({ path: `${shots}/${name}.png` });
    await d.close();
  }
});

await step("actions need the token", async () => {
  let page = await open(c, `/streams/${stuck.id}`);
  assert.equal(await page.locator("details").count(), 0);
  assert.match(await page.locator(".actions").textContent(), /Unlock them with the token: Reset/);
  await page.close();
  const known = await context({ httpCredentials: { username: "operator", password: token } });
  page = await open(known, `/streams/${stuck.id}`);
  await page.locator("a", { hasText: "Unlock" }).click();
  await page.goto(`${url}/streams/${stuck.id}`);
  await page.locator("summary", { hasText: "Reset" }).click();
  await page.locator("details button").click();
  assert.match(await page.locator("#lead").textContent(), new RegExp(`Stream ${stuck.id} was reset`));
  await page.goto(url + "/closed?q=watch");
  await page.locator("#t-failed tbody", { hasText: "CANCELLED" }).waitFor();
  await page.goto(`${url}/conns/${busy.conn}`);
  await page.locator("summary", { hasText: "Trace" }).click();
  await page.locator("input[name=seconds]").fill("0.5");
  await page.locator("details[open] button").click();
  await page.locator("#t-frames tbody td", { hasText: "DATA" }).first().waitFor();
  await page.goto(url + "/config");
  await page.locator("summary", { hasText: "level" }).click();
  await page.locator("input[name=level]").fill("DEBUG");
  await page.locator("details[open] button").click();
  await page.locator("#lead", { hasText: "The level is DEBUG." }).waitFor();
  await page.goto(url + "/debug/pprof/");
  assert.ok((await column(page, "profiles", 1)).includes("goroutine"));
  await known.close();
});

await browser.close();
