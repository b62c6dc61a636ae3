"use strict";
/* The fleet, live. The server sends everything once and then what has changed; here each change
   touches only the nodes that show it, so that five hundred machines cost a few milliseconds. */

const $ = (id) => document.getElementById(id);
const machines = new Map();          // id -> { m: facts, tile, row, key }
let summary = {}, view = "tiles", filter = "all", sortKey = "host", sortDown = false, query = "";
let shownOrder = [], openId = null, due = false;
const throughput = new Throughput($("chart"));
const copies = new Copies($("copies"));

/* Kept where other tabs and the next visit find them; a browser that forbids it forgets. */
const store = {
  get(key) { try { return sessionStorage.getItem(key) || localStorage.getItem(key); } catch { return null; } },
  set(key, value, place) { try { place.setItem(key, value); } catch { /* then only until reload */ } },
};
let token = store.get("ezio-token") || "";

/* ---- words ---- */

const PHASES = { checking: "Checking", downloading: "Downloading", flushing: "Flushing",
  verifying: "Verifying", done: "Done", failed: "Failed" };
const TONES = { fine: "work", slow: "warn", stuck: "bad", gone: "gone", failed: "bad" };

const needsLook = (m) => m.health !== "fine";
const isOver = (m) => m.phase === "done" || m.phase === "failed";

function tone(m) {
  if (needsLook(m)) return TONES[m.health];
  return m.phase === "done" ? "done" : m.paused ? "idle" : "work";
}

function state(m) {
  if (m.health === "gone") return "Gone";
  if (m.health === "stuck") return "Stuck";
  if (m.paused && !isOver(m)) return "Paused";
  return PHASES[m.phase] + (m.health === "slow" ? ", slow" : "");
}

const percent = (part) => Math.floor(part * 100 + 1e-6) + " %";
const link = (mbit) => !mbit ? "unknown" : mbit >= 1000 ? mbit / 1000 + " Gbit/s" : mbit + " Mbit/s";

/* ---- changes ---- */

function setText(node, text) { if (node.textContent !== text) node.textContent = text; }
function setAttr(node, name, value) { if (node.getAttribute(name) !== value) node.setAttribute(name, value); }

function take(message, all) {
  if (all) {
    const ids = new Set(message.machines.map((m) => m.id));
    for (const [id, known] of machines) if (!ids.has(id)) forget(id, known);
    throughput.all(message.history);
    setText($("version"), "EZIO " + message.version);
  } else if (message.history) {
    throughput.add(message.history);
  }
  for (const changed of message.machines) {
    const known = machines.get(changed.id);
    if (known) Object.assign(known.m, changed);
    else machines.set(changed.id, { m: changed, tile: null, row: null });
    machines.get(changed.id).dirty = true;
  }
  if (message.images) showImages(message.images);
  summary = message.summary;
  if (!all && message.count !== machines.size) return false;
  schedule();
  return true;
}

function forget(id, known) {
  known.tile?.node.remove();
  known.row?.node.remove();
  machines.delete(id);
}

/* Not more often than the screen is drawn, and not at all while nobody sees it. */
function schedule() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; render(); });
}

function render() {
  showSummary();
  showAttention();
  showMachines();
  if (openId !== null) showDetail();
}

function showImages(images) {
  $("images").replaceChildren(...images.flatMap((image, i) => [
    i ? ", " : "", el("b", { text: image.name }),
    ` ${formatBytes(image.bytes)} in ${image.pieces} pieces`,
  ]));
  document.title = images.map((image) => image.name).join(", ") + " – EZIO";
  const to = images.map((image) => images.length === 1 ? "--to DEVICE" : `--to ${image.name}=DEVICE`);
  setText($("command"), `ezio deploy http://${location.host} ${to.join(" ")}`);
  copies.show(images);
}

function showSummary() {
  const s = summary;
  if (s.machines === undefined) return;
  const attention = s.slow + s.stuck + s.gone + s.failed;
  const none = !s.machines, over = !none && s.done + s.failed === s.machines;
  setText($("percent"), none ? "–" : String(Math.floor(s.progress * 100 + 1e-6)));
  setText($("headline"), none ? "Waiting for machines"
    : over ? (s.failed ? `${s.done} of ${s.machines} machines done, ${s.failed} failed` : s.machines === 1 ? "The machine is done" : `All ${s.machines} machines are done`)
    : s.eta_seconds !== null ? `${formatTime(s.eta_seconds)} left` : s.working ? "Working" : "Nothing moves");
  const strangers = s.strangers ? `, and ${s.strangers} other client${s.strangers > 1 ? "s" : ""}` : "";
  setText($("subline"), none ? "They appear here as soon as they start."
    : `${s.machines} machine${s.machines > 1 ? "s" : ""}${strangers}`);
  setText($("f-done"), String(s.done));
  setText($("f-working"), String(s.working));
  setText($("f-attention"), String(attention));
  setText($("f-rate"), formatRate(s.rate_in));
  setText($("f-server"), formatRate(s.server_rate));
  setText($("f-elapsed"), formatTime(s.elapsed_seconds));
  const parts = [["done", s.done], ["work", Math.max(0, s.working - s.slow - s.stuck)], ["warn", s.slow],
    ["bad", s.stuck + s.failed], ["gone", s.gone]];
  while ($("stack").childElementCount < parts.length) $("stack").append(el("i"));
  parts.forEach(([name, count], i) => {
    const part = $("stack").children[i];
    setAttr(part, "data-tone", name);
    part.style.flexGrow = String(count);
  });
  setAttr($("stack"), "aria-label", `${s.done} done, ${s.working} working, of them ${s.slow} slow and ${s.stuck} stuck; ${s.failed} failed, ${s.gone} gone`);
  const mbit = Math.min(s.link_mbit || Infinity, s.server_link_mbit || Infinity);
  throughput.limit = Number.isFinite(mbit) ? mbit * 125000 : null;
  setText($("k-limit"), throughput.limit ? `the link's limit, ${link(mbit)}` : "limit of the link unknown");
  const counts = { all: s.machines, working: s.working, done: s.done, attention };
  for (const button of document.querySelectorAll("[data-filter]")) {
    setText(button.querySelector("b"), String(counts[button.dataset.filter]));
  }
  $("none").hidden = !none;
}

const ATTENTION_MAX = 6;
const RANK = { failed: 0, stuck: 1, gone: 2, slow: 3, fine: 4 };

function showAttention() {
  const list = [...machines.values()].map((known) => known.m).filter(needsLook)
    .sort((a, b) => RANK[a.health] - RANK[b.health] || a.id - b.id);
  $("attention").hidden = list.length === 0;
  const shown = list.slice(0, ATTENTION_MAX), place = $("attention-list");
  while (place.childElementCount > shown.length) place.lastElementChild.remove();
  shown.forEach((m, i) => {
    let item = place.children[i];
    if (!item) {
      item = el("li", {}, el("button", { type: "button" },
        el("span", { class: "name" }), el("span", { class: "chip" }), el("span", { class: "why" })));
      item.firstChild.addEventListener("click", () => openDetail(Number(item.dataset.id)));
      place.append(item);
    }
    item.dataset.id = m.id;
    const [name, chip, why] = item.firstChild.children;
    setText(name, m.host);
    setText(chip, m.health);
    setAttr(chip, "data-tone", tone(m));
    setText(why, m.reason || m.error);
  });
  const more = list.length - shown.length;
  $("attention-more").hidden = more <= 0;
  setText($("attention-more"), `and ${more} more; the filter “Need a look” shows all`);
}

/* ---- machines ---- */

const natural = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function matches(m) {
  if (filter === "working" && (isOver(m) || m.health === "gone")) return false;
  if (filter === "done" && m.phase !== "done") return false;
  if (filter === "attention" && !needsLook(m)) return false;
  if (!query) return true;
  return [m.host, m.addr, m.device, m.model, m.serial, m.disk_serial, m.mac, m.image, m.phase]
    .some((text) => text.toLowerCase().includes(query));
}

function compare(a, b) {
  let order;
  if (sortKey === "health") order = RANK[a.health] - RANK[b.health];
  else if (typeof a[sortKey] === "number" || a[sortKey] === null) order = (b[sortKey] ?? -1) - (a[sortKey] ?? -1);
  else order = natural.compare(a[sortKey], b[sortKey]);
  return (sortDown ? -order : order) || natural.compare(a.host, b.host) || a.id - b.id;
}

/* What is out of sight is brought up to date in turn only: what a change costs follows from the size
   of the window and not from the number of machines. */
const OUT_OF_SIGHT_ROUNDS = 16;
let round = 0;

const inSight = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.shows.seen = entry.isIntersecting;
  if (entries.some(({ target }) => target.shows.seen && target.shows.stale)) schedule();
}, { rootMargin: "50%" });

function watched(part) {
  part.stale = part.seen = true;
  part.node.shows = part;
  inSight.observe(part.node);
  return part;
}

function refresh(part, m) {
  part.update(m);
  part.stale = false;
}

function refreshAll() {
  for (const { m, tile, row } of machines.values()) for (const part of [tile, row]) if (part?.stale) refresh(part, m);
}

function showMachines() {
  const list = [...machines.values()].filter((known) => matches(known.m)).sort((a, b) => compare(a.m, b.m));
  const kind = view === "tiles" ? "tile" : "row";
  round += 1;
  list.forEach((known, i) => {
    known[kind] ??= watched(view === "tiles" ? newTile(known.m) : newRow(known.m));
    if (known.dirty) for (const part of [known.tile, known.row]) if (part) part.stale = true;
    known.dirty = false;
    const part = known[kind];
    if (part.stale && (part.seen || (i + round) % OUT_OF_SIGHT_ROUNDS === 0)) refresh(part, known.m);
  });
  const ids = list.map((known) => known.m.id);
  if (ids.length !== shownOrder.length || ids.some((id, i) => id !== shownOrder[i]) || shownOrder.view !== view) {
    place(view === "tiles" ? $("tiles") : $("rows"), list.map((known) => known[kind].node));
    shownOrder = ids;
    shownOrder.view = view;
  }
}

/* Moves only what is elsewhere; a node that has the focus keeps it. */
function place(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
}

function newTile(m) {
  const name = el("span", { class: "name" }), bar = el("i"), phase = el("span", { class: "state" });
  const [time, part, rateIn, rateOut, addr, peers] = Array.from({ length: 6 }, () => el("span"));
  const words = el("span", { class: "words" });
  const line = (kind, ...parts) => el("span", { class: "line " + kind }, ...parts);
  const rates = line("small", rateIn, rateOut);
  const button = el("button", { type: "button", class: "tile" }, line("", name, time), line("", phase, part),
    el("span", { class: "track" }, bar), rates, line("small", addr, peers), words);
  button.addEventListener("click", () => openDetail(m.id));
  const node = el("div", { role: "listitem" }, button);
  const update = (m) => {
    const gone = m.health === "gone", over = isOver(m) || gone, wrong = m.reason || m.error;
    setText(name, m.host);
    setText(time, formatClock(m.phase === "done" ? m.seconds : over ? null : m.eta_seconds));
    setText(phase, m.health === "slow" ? "Slow" : state(m));
    setText(part, percent(m.progress));
    bar.style.transform = `scaleX(${m.progress})`;
    setText(rateIn, m.phase === "done" ? "avg " + formatRate(m.average) : "↓ " + formatRate(m.rate_in));
    setText(rateOut, "↑ " + formatRate(m.rate_out));
    // Where nothing moves, there is more room for the reason.
    rates.hidden = gone || m.phase === "failed";
    setText(addr, m.addr);
    setText(peers, over ? "" : m.peers === 1 ? "1 peer" : `${m.peers} peers`);
    setText(words, wrong || `${m.device} ${m.model}`);
    setAttr(words, "class", "words" + (wrong ? " wrong" : "") + (rates.hidden ? " long" : ""));
    setAttr(button, "data-tone", tone(m));
    setAttr(button, "title", wrong || (m.phase === "done" ? "time; received on average, sends" : "time left; receives, sends"));
  };
  return { node, update };
}

const COLUMNS = [
  ["host", "Name"], ["addr", "Address"], ["device", "Device"], ["model", "Model"], ["phase", "Phase"],
  ["progress", "Progress"], ["rate_in", "In", "num"], ["rate_out", "Out", "num"],
  ["eta_seconds", "Left", "num"], ["peers", "Peers", "num"], ["health", "What is wrong", "why"],
];

function newRow(m) {
  const cells = COLUMNS.map(([, , kind]) => el("td", kind ? { class: kind } : {}));
  const name = el("button", { type: "button", class: "link" }), bar = el("i"), phase = el("span", { class: "state" });
  const number = el("span");
  cells[0].append(name);
  cells[4].append(phase);
  cells[5].append(el("span", { class: "track" }, bar), " ", number);
  const node = el("tr", {}, ...cells);
  node.addEventListener("click", () => openDetail(m.id));
  const update = (m) => {
    const over = isOver(m) || m.health === "gone";
    setAttr(node, "data-tone", tone(m));
    setText(name, m.host);
    setText(cells[1], m.addr);
    setText(cells[2], m.device);
    setText(cells[3], m.model);
    setAttr(cells[2], "title", m.device);
    setAttr(cells[3], "title", m.model);
    setText(phase, m.health === "slow" ? "Slow" : state(m));
    bar.style.transform = `scaleX(${m.progress})`;
    setText(number, percent(m.progress));
    setText(cells[6], over ? "" : formatRate(m.rate_in));
    setText(cells[7], m.health === "gone" ? "" : formatRate(m.rate_out));
    setText(cells[8], formatClock(m.eta_seconds));
    setText(cells[9], String(m.peers));
    setText(cells[10], m.reason || m.error);
  };
  return { node, update };
}

function showColumns() {
  $("columns").replaceChildren(...COLUMNS.map(([key, label, kind]) => {
    const button = el("button", { type: "button", text: label });
    button.addEventListener("click", () => { sortBy(key, sortKey === key && !sortDown); });
    const head = el("th", { scope: "col" }, button);
    if (kind) head.className = kind;
    if (sortKey === key) head.setAttribute("aria-sort", sortDown ? "descending" : "ascending");
    return head;
  }));
}

function sortBy(key, down) {
  [sortKey, sortDown] = [key, down];
  if ([...$("sort").options].some((option) => option.value === key)) $("sort").value = key;
  const focused = document.activeElement?.closest("th") ? [...$("columns").children].indexOf(document.activeElement.closest("th")) : -1;
  showColumns();
  if (focused >= 0) $("columns").children[focused].firstChild.focus();
  schedule();
}

/* ---- one machine ---- */

function openDetail(id) {
  openId = id;
  showDetail();
  if (!$("detail").open) $("detail").showModal();
}

function showDetail() {
  const known = machines.get(openId);
  if (!known) { $("detail").close(); return; }
  const m = known.m;
  setText($("detail-title"), m.host);
  setText($("detail-why"), m.reason || m.error || state(m));
  setAttr($("detail"), "data-tone", tone(m));
  $("detail-bar").style.transform = `scaleX(${m.progress})`;
  const facts = [
    ["Phase", state(m)], ["Progress", percent(m.progress)], ["Left", formatTime(m.eta_seconds)],
    ["Time", formatTime(m.seconds)], ["Receives", formatRate(m.rate_in)], ["Sends", formatRate(m.rate_out)],
    ["Received", formatBytes(m.received_bytes)], ["Passed on", formatBytes(m.sent_bytes)],
    ["Average", formatRate(m.average)], ["Peers", String(m.peers)], ["Waits for the disk", formatBytes(m.waiting_bytes)],
    ["Limit", m.limit ? formatRate(m.limit) : "none"], ["Address", m.addr], ["MAC", m.mac || "–"],
    ["Link", `${m.interface || "–"}, ${link(m.link_mbit)}`], ["Image", m.image || "–"],
    ["Device", m.device || "–"], ["Model", m.model || "–"], ["Disk serial", m.disk_serial || "–"],
    ["Machine serial", m.serial || "–"],
    ["Verified", m.verified ? (m.read_again ? "yes, and read again" : "yes") : "not yet"],
  ];
  const list = $("detail-facts");
  facts.forEach(([term, value], i) => {
    if (!list.children[i]) list.append(el("div", {}, el("dt", { text: term }), el("dd")));
    setText(list.children[i].lastChild, value);
  });
  $("detail-actions").hidden = !token;
  const may = { pause: !m.orders.paused && !isOver(m), resume: m.orders.paused, retry: m.phase === "failed" && m.can_retry,
    limit: !isOver(m), finish: !m.orders.finish };
  for (const button of $("detail-actions").children) button.hidden = !may[button.dataset.action];
}

/* ---- talking to the server ---- */

const headers = () => token ? { Authorization: "Bearer " + token } : {};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function live(name, words) { setAttr($("live"), "data-state", name); setText($("live"), words); }

/* As EventSource does it, but with the token in a header, where no log keeps it. */
async function listen() {
  for (;;) {
    try {
      const response = await fetch("/events", { headers: headers(), cache: "no-store" });
      if (response.status === 401) {
        live("off", "locked");
        if (!await unlock("This dashboard is private")) await sleep(5000);
        continue;
      }
      if (!response.ok) throw new Error(await response.text());
      await read(response.body.getReader());
    } catch { /* told below */ }
    live("off", "connection lost, trying again");
    await sleep(1000);
  }
}

async function read(reader) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const timer = setTimeout(() => reader.cancel(), 15000);
    const { done, value } = await reader.read();
    clearTimeout(timer);
    if (done) return;
    text += decoder.decode(value, { stream: true });
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const [first, second] = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      live("on", "live");
      if (!take(JSON.parse(second.slice(6)), first === "event: snapshot")) return reader.cancel();
    }
  }
}

async function act(action, which) {
  const order = { action, machines: which };
  if (action === "limit") {
    const text = await ask("Limit rate", "Megabytes a second, for each machine and direction", "Empty: no limit", "text");
    if (text === null) return;
    const rate = Number(text.trim().replace(",", "."));
    if (!(rate >= 0)) return toast("That is no number.");
    order.limit = rate > 0 ? Math.max(1, Math.round(rate * 1e6)) : null;
  }
  try {
    const response = await fetch("/api/actions", { method: "POST", body: JSON.stringify(order),
      headers: { ...headers(), "Content-Type": "application/json" } });
    if (response.status === 401) { forgetToken(); return toast("The token is wrong."); }
    if (!response.ok) return toast(await response.text());
    const count = (await response.json()).machines;
    toast(count ? `Told ${count} machine${count > 1 ? "s" : ""}; they answer within a second or two.` : "No machine can do that now.");
  } catch { toast("The server does not answer."); }
}

async function download(kind) {
  const response = await fetch("/report." + kind, { headers: headers() }).catch(() => null);
  if (!response?.ok) return toast("The report does not come: " + (response ? await response.text() : "no answer"));
  const anchor = el("a", { download: "ezio-report." + kind });
  anchor.href = URL.createObjectURL(await response.blob());
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

/* ---- asking people ---- */

function ask(title, label, hint, type) {
  const dialog = $("ask"), input = $("ask-input");
  setText($("ask-title"), title);
  setText($("ask-label"), label);
  setText($("ask-hint"), hint);
  input.type = type;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((done) => dialog.addEventListener("close",
    () => done(dialog.returnValue === "ok" ? input.value : null), { once: true }));
}

async function unlock(title) {
  const given = await ask(title, "Token", "ezio serve has printed it where it was started.", "password");
  if (!given) return false;
  token = given.trim();
  store.set("ezio-token", token, sessionStorage);
  showActions();
  return true;
}

function forgetToken() {
  token = "";
  store.set("ezio-token", "", sessionStorage);
  showActions();
}

function showActions() {
  $("actions").hidden = !token;
  setText($("unlock"), token ? "Lock actions" : "Unlock actions");
  schedule();
}

let toastTimer;
function toast(text) {
  clearTimeout(toastTimer);
  setText($("toast"), text);
  $("toast").hidden = false;
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 6000);
}

/* ---- controls ---- */

function press(selector, button) {
  for (const other of document.querySelectorAll(selector)) setAttr(other, "aria-pressed", String(other === button));
}

for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => { filter = button.dataset.filter; press("[data-filter]", button); schedule(); });
}
for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => {
    view = button.dataset.view;
    press("[data-view]", button);
    $("tiles").hidden = view !== "tiles";
    $("table").hidden = view !== "table";
    schedule();
  });
}
for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", () => {
    const one = button.closest("dialog");
    act(button.dataset.action, one ? [openId] : "all");
  });
}
for (const button of document.querySelectorAll("[data-report]")) {
  button.addEventListener("click", () => download(button.dataset.report));
}
$("search").addEventListener("input", () => { query = $("search").value.trim().toLowerCase(); schedule(); });
$("sort").addEventListener("change", () => sortBy($("sort").value, false));
$("ask-cancel").addEventListener("click", () => $("ask").close(""));
$("detail").addEventListener("close", () => { openId = null; });
$("unlock").addEventListener("click", () => { if (token) forgetToken(); else unlock("Unlock actions"); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, dialog")) { event.preventDefault(); $("search").focus(); }
});

const dark = matchMedia("(prefers-color-scheme: dark)");
function showTheme() { document.documentElement.dataset.theme = store.get("ezio-theme") || (dark.matches ? "dark" : "light"); }
window.addEventListener("beforeprint", refreshAll);
dark.addEventListener("change", showTheme);
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  store.set("ezio-theme", next, localStorage);
  showTheme();
});

showTheme();
showColumns();
showActions();
listen();
