// The batch's data: loaded from gallery/, and loaded again where the manifest says that they changed.
"use strict";

const POLL_MS = { running: 3000, ended: 30000 };
const PARALLEL_LOADS = 6;

// `changedAt`: when this page saw the manifest change, by its own clock.
const batch = { manifest: null, chunks: [], changedAt: null };

// The files in gallery/ call these.
const gallery = {
  manifest(next) {
    if (batch.manifest && batch.manifest.written !== next.written) batch.changedAt = Date.now();
    batch.manifest = next;
    batch.chunks.length = next.chunks.length;
  },

  chunk({ number, version, fields }, rows) {
    const before = batch.chunks[number]?.slots ?? [];
    const slots = rows.map((row, place) => row && newest(before[place], toItem(fields, row)));
    batch.chunks[number] = { version, slots, items: slots.filter(Boolean) };
  },
};

const allItems = () => batch.chunks.flatMap((chunk) => chunk.items);
const isLoaded = () => batch.manifest.chunks.every((version, number) => batch.chunks[number]);
const numVideos = () => Object.values(batch.manifest.counts).reduce((sum, number) => sum + number, 0);

function toItem(fields, row) {
  const item = Object.fromEntries(fields.map((field, place) => [field, row[place]]));
  item.size = `${item.width}×${item.height}${item.num_frames > 1 ? `×${item.num_frames}` : ""}`;
  item.total = item.seconds && Object.values(item.seconds).reduce((sum, seconds) => sum + seconds, 0);
  item.text = `${item.id}\n${item.prompt}`.toLowerCase();
  return item;
}

// The item itself tells whether anything changed: what says the same stays the same object.
function newest(before, item) {
  return before && JSON.stringify(before) === JSON.stringify(item) ? before : item;
}

function matching(items, view) {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = items.filter((item) =>
    (!view.status || item.status === view.status) &&
    (!view.method || item.method === view.method) &&
    (!view.size || item.size === view.size) &&
    words.every((word) => item.text.includes(word)));
  return view.sort === "slowest" ? found.sort((a, b) => (b.total ?? -1) - (a.total ?? -1)) : found;
}

const isImage = (path) => path?.endsWith(".png") ?? false;

// The URL of a path below videos/, null for any other: the path comes from data, which may point anywhere.
function videoUrl(path) {
  const parts = (path ?? "").split("/");
  const isName = (part) => part && part !== "." && part !== ".." && !part.includes("\\") && part.isWellFormed();
  const isInside = parts.length > 1 && parts[0] === "videos" && parts.every(isName);
  return isInside ? parts.map(encodeURIComponent).join("/") : null;
}

// The small picture beside it.
const posterUrl = (path) => videoUrl(path)?.replace(/\.\w+$/, ".webp");

// By a script element, because fetch does not read file://. What cannot be read now is tried again at the next poll.
function load(source) {
  return new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = source;
    script.onload = script.onerror = () => {
      script.remove();
      resolve();
    };
    document.head.append(script);
  });
}

async function loadChanges(show) {
  const { chunks } = batch.manifest;
  const changed = [...chunks.keys()].filter((number) => batch.chunks[number]?.version !== chunks[number]);
  const loadSome = async () => {
    while (changed.length) {
      const number = changed.shift();
      await load(`gallery/${String(number).padStart(4, "0")}.js?${chunks[number]}`);
      show();
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_LOADS }, loadSome));
}

async function follow(show) {
  await load(`gallery/manifest.js?${Date.now()}`);
  show();
  if (batch.manifest) await loadChanges(show);
  setTimeout(follow, batch.manifest && !batch.manifest.running ? POLL_MS.ended : POLL_MS.running, show);
}
