// The dialog with everything about one video.
"use strict";

const dialog = byId("details");
const prefersStill = matchMedia("(prefers-reduced-motion: reduce)");
let detailed = null;

function openDetails(item) {
  fillDetails(item);
  if (!dialog.open) dialog.showModal();
  if (!prefersStill.matches) byId("details-media").querySelector("video")?.play().catch(() => {});
}

function fillDetails(item) {
  if (detailed === item) return;
  detailed = item;
  dialog.dataset.status = item.status;
  byId("details-id").textContent = item.id;
  byId("details-status").textContent = item.status;
  byId("details-prompt").textContent = item.prompt;
  byId("details-error").textContent = item.error;
  byId("details-error").hidden = !item.error;
  byId("details-list").replaceChildren(...detailRows(item));
  byId("details-media").hidden = item.status !== "done";
  fillMedia({ media: byId("details-media"), item, isNear: true, isInView: false, isWhole: true });
  const place = shown.indexOf(item);
  byId("before").disabled = place < 1;
  byId("after").disabled = place < 0 || place === shown.length - 1;
}

function detailRows(item) {
  const url = videoUrl(item.video);
  const bar = element("div", { className: "bar", role: "img" });
  fillBar(bar, item.seconds ?? {}, STAGES, duration);
  const stages = Object.entries(item.seconds ?? {}).map(([stage, seconds]) => `${stage} ${seconds.toFixed(2)}\u00a0s`);
  const { steps, dense_steps: dense, sparse_steps: sparse } = item;
  const rows = {
    Seed: item.seed,
    Method: item.method,
    Size: `${item.width} × ${item.height} pixels${item.num_frames > 1 ? `, ${item.num_frames} frames` : ""}`,
    Steps: dense === null ? steps : `${steps}: ${dense} dense, ${sparse} sparse`,
    Time: item.total === null ? null : element("div", {}, duration(item.total), bar, stages.join(", ")),
    Attempts: item.attempts || null,
    Gang: item.gang,
    File: url ? element("a", { href: url, textContent: item.video }) : item.video,
  };
  const known = Object.entries(rows).filter(([, value]) => value !== null);
  return known.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", {}, value)]);
}

// By id, because the item may have been replaced by a newer one.
const placeOfDetailed = () => shown.findIndex((item) => item.id === detailed.id);

function refreshDetails() {
  if (dialog.open) fillDetails(shown[placeOfDetailed()] ?? detailed);
}

function stepDetails(by) {
  const next = shown[placeOfDetailed() + by];
  if (next && placeOfDetailed() >= 0) openDetails(next);
}

function copy(button, text) {
  navigator.clipboard.writeText(text).then(() => {
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1200);
  });
}

byId("close").addEventListener("click", () => dialog.close());
byId("before").addEventListener("click", () => stepDetails(-1));
byId("after").addEventListener("click", () => stepDetails(1));
byId("copy-id").addEventListener("click", ({ target }) => copy(target, detailed.id));
byId("copy-prompt").addEventListener("click", ({ target }) => copy(target, detailed.prompt));
byId("copy-id").hidden = byId("copy-prompt").hidden = !navigator.clipboard;
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
dialog.addEventListener("close", () => {
  byId("details-media").replaceChildren();
  byId("details-media").shows = detailed = null;
});
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && !event.target.closest("video")) stepDetails(by);
});
