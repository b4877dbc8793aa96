// Keeps a page fresh: fetches its fragment when the sweep says that something happened, and puts in what changed.
// Without it the page is the same, as of when it was loaded.

const main = document.querySelector("main");
const fragment = main?.dataset.fragment;
const shown = new Map();
const LEAST_PAUSE_MS = 1000;
const KINDS = ["trial.queued", "trial.running", "trial.phase", "trial.report", "trial.ended", "sweep.created", "sweep.state", "sweep.extended", "sweep.target", "message"];

let source = null;
let due = false;
let busy = false;
let lastRefresh = 0;
let pauseMs = LEAST_PAUSE_MS;

function remember() {
  for (const part of main.querySelectorAll("[data-live]")) shown.set(part.id, part.innerHTML);
}

/** Replace the live parts that differ; keep scroll positions, open details and the focused element. */
function apply(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const here = document.getElementById(part.id);
    if (!here || shown.get(part.id) === part.innerHTML) continue;
    if (here.contains(document.activeElement) && document.activeElement.matches("select, input, textarea")) continue;
    shown.set(part.id, part.innerHTML);
    const focus = here.contains(document.activeElement) ? address(document.activeElement) : null;
    const scrolled = [...here.querySelectorAll("[id].scroll")].map((each) => [each.id, each.scrollLeft, each.scrollTop]);
    const open = new Set([...here.querySelectorAll("details[id]")].filter((each) => each.open).map((each) => each.id));
    here.replaceChildren(...part.childNodes);
    for (const [id, left, top] of scrolled) document.getElementById(id)?.scrollTo(left, top);
    for (const each of here.querySelectorAll("details[id]")) if (open.has(each.id)) each.open = true;
    if (focus) here.querySelector(focus)?.focus({ preventScroll: true });
  }
  mark(isLive);
  // A part that came or went (the first losses, the first attempt) changes the layout: then take the page as it is.
  const ids = [...fresh.querySelectorAll("[data-live]")].map((each) => each.id).join();
  const had = [...main.querySelectorAll("[data-live]")].map((each) => each.id).join();
  if (ids !== had) location.reload();
  if (fresh.querySelector("[data-ended]")) stop();
}

/** A selector that finds the element again after its part was replaced. */
function address(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const link = element.getAttribute("href");
  return link ? `${element.localName}[href="${CSS.escape(link)}"]` : null;
}

async function refresh() {
  if (busy || document.hidden) {
    due = true;
    return;
  }
  busy = true;
  due = false;
  const began = performance.now();
  try {
    const answer = await fetch(fragment, { headers: { Accept: "text/html" } });
    if (answer.ok) apply(await answer.text());
  } catch {
    // The service is away for a moment: the next event or poll tries again.
  }
  lastRefresh = performance.now();
  // A page that takes long to make is asked for less often.
  pauseMs = Math.max(LEAST_PAUSE_MS, 4 * (lastRefresh - began));
  busy = false;
  if (due) soon();
}

let timer = 0;
function soon() {
  if (timer) return;
  timer = setTimeout(() => {
    timer = 0;
    refresh();
  }, Math.max(50, pauseMs - (performance.now() - lastRefresh)));
}

function listen() {
  source = new EventSource(main.dataset.events);
  const trial = main.dataset.trial;
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      if (trial && kind.startsWith("trial.") && !event.data.includes(trial)) return;
      soon();
    });
  }
  source.addEventListener("open", () => mark(true));
  source.addEventListener("error", () => {
    mark(false);
    soon();
  });
}

let isLive = false;
function mark(live) {
  isLive = live;
  for (const each of document.querySelectorAll("[data-live-mark]")) each.hidden = !live;
}

function stop() {
  source?.close();
  mark(false);
}

for (const form of document.querySelectorAll("form[data-auto]")) form.classList.add("auto");
document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form[data-auto]");
  if (form) form.requestSubmit();
});

/** A link to something folded opens it. */
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
unfold();
window.addEventListener("hashchange", unfold);

if (fragment) {
  remember();
  if (main.dataset.events) listen();
  if (main.dataset.pollSeconds) setInterval(refresh, 1000 * Number(main.dataset.pollSeconds));
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && due) soon();
  });
}
