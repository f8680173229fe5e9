// One video or image as a card. All text goes in as text: prompts and errors are never markup.
"use strict";

const STATUSES = ["done", "running", "retrying", "failed", "waiting"];
const STAGES = ["encode", "denoise", "decode", "write"];
const NEAR = "500px";
const HOVER_MS = 120;

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)}\u00a0s`;
  const [hours, minutes, rest] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
  return hours ? `${hours} h ${minutes} min` : rest ? `${minutes} min ${rest} s` : `${minutes} min`;
}

// Cards near the viewport hold a poster or a video; there may be 100,000 others.
const nearby = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    target.card.isNear = isIntersecting;
    fillMedia(target.card);
  }
}, { rootMargin: NEAR });

const inView = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    target.card.isInView = isIntersecting;
    playOrPause(target.card);
  }
}, { threshold: 0.4 });

let playsAll = false;

function playOrPause(card) {
  if (playsAll && card.isInView) wake(card);
  const video = card.media.querySelector("video");
  if (playsAll && video && card.isInView) video.play().catch(() => {}); // The browser may refuse, or the card be gone.
  else if (playsAll) video?.pause();
}

function makeCard() {
  const node = byId("card").content.firstElementChild.cloneNode(true);
  const card = { node, item: null, isNear: false, isInView: false };
  for (const part of node.querySelectorAll("[data-part]")) card[part.dataset.part] = part;
  card.id.addEventListener("click", () => openDetails(card.item));
  card.media.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && wakeSoon(card));
  card.media.addEventListener("pointerleave", () => clearTimeout(card.waking));
  node.card = card;
  nearby.observe(node);
  inView.observe(node);
  return card;
}

function dropCard(card) {
  nearby.unobserve(card.node);
  inView.unobserve(card.node);
  card.node.remove();
}

function fillCard(card, item) {
  if (card.item === item) return;
  card.item = item;
  card.node.dataset.status = item.status;
  card.id.textContent = item.id;
  card.id.setAttribute("aria-label", `Details of ${item.id}`);
  card.method.textContent = item.method;
  card.status.textContent = item.status;
  card.prompt.textContent = card.prompt.title = item.prompt;
  card.facts.replaceChildren(...facts(item).map((fact) => element("span", { textContent: fact })));
  fillBar(card.bar, item.seconds ?? {}, STAGES, duration);
  fillMedia(card);
}

function facts(item) {
  const { dense_steps: dense, sparse_steps: sparse } = item;
  const steps = dense === null ? `${item.steps} steps` : `${dense} dense + ${sparse} sparse`;
  const time = item.total !== null ? duration(item.total) : item.attempts > 1 ? `attempt ${item.attempts}` : "";
  return [time, steps, `seed ${item.seed}`, item.size];
}

// A stacked bar of parts, `{name: number}`; `known` names have colours and come first.
function fillBar(bar, parts, known, format) {
  const names = [...new Set([...known, ...Object.keys(parts)])].filter((name) => parts[name] > 0);
  const texts = names.map((name) => `${name} ${format(parts[name])}`);
  bar.hidden = !names.length;
  bar.setAttribute("aria-label", texts.join(", "));
  bar.replaceChildren(...names.map((name, place) => {
    const piece = element("span", { title: texts[place], className: known.includes(name) ? `is-${name}` : "" });
    piece.style.flexGrow = parts[name];
    return piece;
  }));
}

function note(item) {
  switch (item.status) {
    case "waiting": return "Waiting";
    case "running": return item.gang === null ? "Rendering" : `Rendering on gang ${item.gang}`;
    case "retrying": return item.error ? `Will be tried again: ${item.error}` : "Will be tried again";
    case "failed": return item.error ?? "Failed; the reason is not known";
  }
  if (videoUrl(item.video)) return "";
  return item.video ? "Not shown: its path leads out of videos/" : "There is no file";
}

// A poster, video or image, or why there is none. What is there and still right stays, so that it goes on playing.
function fillMedia(card) {
  const { media, item } = card;
  const url = item.status === "done" && videoUrl(item.video);
  const shows = !url ? `note ${note(item)}` : card.isNear ? `video ${url} ${item.total}` : "nothing";
  if (media.shows === shows) return;
  media.shows = shows;
  media.querySelector("video")?.removeAttribute("src");
  if (url && card.isNear) media.replaceChildren(item.poster && !card.isWhole ? makePoster(card) : makeWhole(item));
  else media.replaceChildren(...(url ? [] : [makeNote(note(item))]));
  playOrPause(card);
}

const makeWhole = (item) => (isImage(item.video) ? makeImage(item) : makeVideo(item));

// The small picture of a video or image. A video takes its place once somebody points at it, and plays when clicked.
function makePoster(card) {
  const { item } = card;
  const picture = element("img", { src: posterUrl(item.video), alt: item.prompt, decoding: "async" });
  const ofImage = isImage(item.video);
  const button = element("button", { type: "button", className: ofImage ? "poster" : "poster plays" }, picture);
  picture.addEventListener("error", () => button.isConnected && button.replaceWith(makeWhole(item)));
  button.setAttribute("aria-label", `${ofImage ? "Enlarge" : "Play"} ${item.id}`);
  button.addEventListener("click", () => (ofImage ? openDetails(card.item) : playFromPoster(card)));
  return button;
}

// So long a pointer has to rest on a poster: who crosses the page loads no videos.
function wakeSoon(card) {
  clearTimeout(card.waking);
  card.waking = setTimeout(() => wake(card), HOVER_MS);
}

function wake(card) {
  const poster = card.media.querySelector(".plays");
  if (!poster) return;
  const hadFocus = poster === document.activeElement;
  const video = makeVideo(card.item);
  poster.replaceWith(video);
  if (hadFocus) video.focus();
}

function playFromPoster(card) {
  wake(card);
  card.media.querySelector("video")?.play().catch(() => {});
}

const makeNote = (text) => element("p", { className: "note", dir: "auto", textContent: text });

function makeImage(item) {
  const image = element("img", { src: videoUrl(item.video), alt: item.prompt, decoding: "async" });
  image.addEventListener("error", () => image.isConnected && image.replaceWith(makeNote("This file cannot be shown")));
  return image;
}

function makeVideo(item) {
  const settings = { muted: true, loop: true, controls: true, playsInline: true, preload: "metadata" };
  const video = element("video", { ...settings, src: videoUrl(item.video) });
  if (item.poster) video.poster = posterUrl(item.video);
  video.setAttribute("aria-label", item.prompt);
  video.addEventListener("error", () => video.isConnected && video.replaceWith(makeNote("This file cannot be played")));
  return video;
}
