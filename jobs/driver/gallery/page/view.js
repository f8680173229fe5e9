// What the viewer asked to see, kept in the address, and the page that shows it.
"use strict";

const PAGE_SIZE = 120;
const STALE_MS = 60000;
const SHOW_EVERY_MS = 150;
const PLAIN = { status: "", search: "", method: "", size: "", sort: "order", page: 0 };

const view = { ...PLAIN };
const cards = new Map();
let shown = [];
let showing = null;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(PLAIN)) view[name] = given.get(name) ?? PLAIN[name];
  view.page = Math.max(0, Math.floor(Number(view.page)) || 0);
  byId("search").value = view.search;
}

function change(changes) {
  Object.assign(view, { page: 0 }, changes);
  const unusual = Object.entries(view).filter(([name, value]) => value !== PLAIN[name]);
  history.replaceState(null, "", `#${new URLSearchParams(unusual)}`);
  show();
}

const numPages = () => Math.ceil(shown.length / PAGE_SIZE);

// While many chunks come in, the page follows at a pace that leaves time for the viewer.
function showSoon() {
  showing ??= setTimeout(show, SHOW_EVERY_MS);
}

function show() {
  clearTimeout(showing);
  showing = null;
  const items = allItems();
  shown = matching(items, view);
  if (batch.manifest && isLoaded()) view.page = Math.min(view.page, Math.max(0, numPages() - 1));
  showHeader();
  showChoices(items);
  showGrid(shown.slice(view.page * PAGE_SIZE, (view.page + 1) * PAGE_SIZE));
  showSummary(items);
  refreshDetails();
}

function showHeader() {
  const { manifest } = batch;
  if (!manifest) return;
  byId("title").textContent = manifest.title;
  document.title = manifest.title;
  fillBar(byId("progress"), manifest.counts, STATUSES, String);
  const total = numVideos();
  const chips = [["", "all", total], ...STATUSES.map((status) => [status, status, manifest.counts[status] ?? 0])];
  for (const [status, name, number] of chips) showChip(status, name, number);
  byId("words").textContent = (manifest.words ?? []).join(" · ");
  showState();
}

function showChip(status, name, number) {
  let chip = byId(`chip-${name}`);
  if (!chip) {
    chip = element("button", { id: `chip-${name}`, type: "button", className: "chip" }, element("b"), ` ${name}`);
    chip.dataset.status = status;
    chip.addEventListener("click", () => change({ status }));
    byId("statuses").append(chip);
  }
  chip.firstChild.textContent = number.toLocaleString("en");
  chip.setAttribute("aria-pressed", view.status === status);
  chip.hidden = !number && status && view.status !== status;
}

// The driver's clock may be wrong: once the page has seen the data change, its own counts.
const age = () => Date.now() - (batch.changedAt ?? batch.manifest.written * 1000);

function showState() {
  if (!batch.manifest) return;
  const { running, written } = batch.manifest;
  const isStale = running && age() > STALE_MS;
  byId("state").dataset.state = isStale ? "stale" : running ? "running" : "ended";
  byId("state").textContent = isStale ? "stale" : running ? "running"
    : `ended ${new Date(written * 1000).toLocaleString()}`;
  byId("warning").hidden = !isStale;
  const text = `Last written ${duration(Math.floor(age() / 60000) * 60)} ago; the driver may be gone.`;
  if (isStale && byId("warning").textContent !== text) byId("warning").textContent = text;
}

function showChoices(items) {
  for (const field of ["method", "size"]) {
    const select = byId(field);
    const values = [...new Set(items.map((item) => item[field]).concat(view[field] || []))].sort();
    if (select.dataset.values !== values.join("\n")) {
      select.dataset.values = values.join("\n");
      const options = values.map((value) => element("option", { value, textContent: value }));
      select.replaceChildren(element("option", { value: "", textContent: "all" }), ...options);
    }
    select.value = view[field];
    byId(`${field}s`).hidden = values.length < 2;
  }
  byId("sort").value = view.sort;
}

// Cards that stay are not moved where that can be avoided, and never made anew: a video in them goes on playing.
function showGrid(items) {
  const grid = byId("grid");
  const [first] = items;
  if (first) grid.style.setProperty("--aspect", first.width / first.height);
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, card] of cards) {
    if (wanted.has(id)) continue;
    dropCard(card);
    cards.delete(id);
  }
  let next = grid.firstElementChild;
  for (const [number, item] of items.entries()) {
    if (!cards.has(item.id)) cards.set(item.id, makeCard());
    const card = cards.get(item.id);
    fillCard(card, item);
    card.node.classList.toggle("begins-row", beginsRow(items, number));
    if (card.node === next) next = next.nextElementSibling;
    else place(card.node, next);
  }
}

// Videos of one prompt and seed, as by several methods, stand beside each other, in rows of their own.
function beginsRow(items, number) {
  const named = (place) => `${items[place]?.seed} ${items[place]?.prompt}`;
  const isAsBefore = (place) => named(place) === named(place - 1);
  return !isAsBefore(number) && (isAsBefore(number + 1) || isAsBefore(number - 1));
}

function place(node, next) {
  const playing = [...node.querySelectorAll("video")].filter((video) => !video.paused);
  byId("grid").insertBefore(node, next);
  for (const video of playing) video.play().catch(() => {});
}

function showSummary(items) {
  const { manifest } = batch;
  const isComplete = manifest && isLoaded();
  const total = manifest ? numVideos() : 0;
  const number = (count) => count.toLocaleString("en");
  const ofImages = isImage(items.find((item) => item.video)?.video);
  const videos = `${number(total)} ${ofImages ? "image" : "video"}${total === 1 ? "" : "s"}`;
  const reading = isComplete ? "" : `; ${number(items.length)} read so far`;
  const matches = shown.length === total ? videos : `${number(shown.length)} of ${videos}`;
  byId("summary").textContent = shown.length ? matches + reading : "";
  byId("play").hidden = ofImages;
  byId("legend").hidden = !shown.some((item) => item.seconds);
  byId("empty").hidden = shown.length > 0;
  byId("clear").hidden = !items.length;
  byId("reason").textContent = !manifest ? "Nothing has been written yet. This page looks again every few seconds."
    : !isComplete ? "Reading …" : total ? "No video matches." : "The batch has no videos.";
  showPager();
}

function showPager() {
  const pages = numPages();
  byId("pager").hidden = pages < 2;
  byId("page").textContent = `Page ${(view.page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page >= pages - 1;
}

function turnTo(page) {
  change({ page });
  document.querySelector("main").scrollIntoView();
}

byId("search").addEventListener("input", ({ target }) => change({ search: target.value }));
for (const field of ["method", "size", "sort"]) {
  byId(field).addEventListener("change", ({ target }) => change({ [field]: target.value }));
}
byId("tools").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => {
  byId("search").value = "";
  change({ ...PLAIN, sort: view.sort });
});
byId("previous").addEventListener("click", () => turnTo(view.page - 1));
byId("next").addEventListener("click", () => turnTo(view.page + 1));
byId("play").addEventListener("click", ({ target }) => {
  for (const card of cards.values()) if (playsAll) card.media.querySelector("video")?.pause();
  playsAll = !playsAll;
  target.setAttribute("aria-pressed", playsAll);
  for (const card of cards.values()) playOrPause(card);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, dialog")) return;
  event.preventDefault();
  byId("search").focus();
});
addEventListener("hashchange", () => {
  readAddress();
  show();
});

for (const stage of STAGES) {
  byId("legend").append(element("span", { className: `key is-${stage}`, textContent: stage }));
}
setInterval(showState, 1000);
readAddress();
show();
follow(showSoon);
