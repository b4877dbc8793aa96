// Without this file the page is whole, as of when it was loaded. With it: live parts (htmx asks for them again when the
// sweep says that something happened), forms that call the API, the state of the pictures in the address.

const main = document.querySelector("main");
const LEAST_PAUSE_MS = 1000;
const POLL_MS = 4000;
const PROGRESS = ["trial.queued", "trial.running", "trial.phase", "trial.report", "sweep.annotated", "message"];
const RESULTS = ["trial.ended", "trial.replicated", "sweep.created", "sweep.state", "sweep.extended", "sweep.target"];
/** Parts of the address that the leaderboard's own requests do not know better. */
const WISHES = ["prefer", "within", "weight"];
const KEPT = ["x", "y", "picture", "metric", "over", "hide", "trial", ...WISHES];
const OF_BOARD = ["sort", "state", "feasible", "on_front", "where", "column", "differing"];

// --- live parts -------------------------------------------------------------------------------------------------------

let due = null;
let timer = 0;
let asked = 0;
let open = 0;
let pauseMs = LEAST_PAUSE_MS;

/** Ask for the live parts again: soon, not too often, and less often where answers take long. */
function soon(what) {
  due = due === "results" ? due : what;
  if (timer || document.hidden || open) return;
  timer = setTimeout(() => {
    timer = 0;
    const event = due;
    due = null;
    asked = performance.now();
    htmx.trigger(document.body, event);
  }, Math.max(50, pauseMs - (performance.now() - asked)));
}

const watch = document.getElementById("watch");
if (watch) {
  for (const [kinds, what] of [[PROGRESS, "progress"], [RESULTS, "results"]]) {
    for (const kind of kinds) {
      watch.addEventListener(kind, (event) => {
        const trial = watch.dataset.trial;
        if (trial && kind.startsWith("trial.") && !String(event.detail?.data).includes(trial)) return;
        soon(trial ? "progress" : what);
      });
    }
  }
  watch.addEventListener("htmx:sse:after:connection", () => mark(true));
  for (const lost of ["htmx:sse:error", "htmx:sse:close"]) watch.addEventListener(lost, () => mark(false));
}

let isLive = false;
function mark(live) {
  isLive = live;
  for (const each of document.querySelectorAll("[data-live-mark]")) each.hidden = !live;
}

const isPart = (element) => element?.matches?.("[hx-trigger*='from:body']");
document.addEventListener("htmx:before:request", (event) => {
  if (isPart(event.detail.ctx.sourceElement)) open += 1;
});
document.addEventListener("htmx:finally:request", (event) => {
  if (!isPart(event.detail.ctx.sourceElement)) return;
  open = Math.max(0, open - 1);
  pauseMs = Math.max(LEAST_PAUSE_MS, 4 * (performance.now() - asked));
  if (due && !open) soon(due);
});
document.addEventListener("htmx:after:swap", () => {
  mark(isLive);
  fitComparison();
  if (document.querySelector("[data-ended]")) document.getElementById("watch")?.remove();
});
/** The page that is loaded anew says what became of the token. Each live part is refused: once is enough. */
let isLeaving = false;
function leave() {
  if (!isLeaving) location.reload();
  isLeaving = true;
}

/** What was refused replaces nothing: a choice's own page says why; a live part is asked for again later. */
document.addEventListener("htmx:response:error", (event) => {
  const { ctx } = event.detail;
  const findings = ctx.target?.id === "findings" ? ctx.target : null;
  if (ctx.response.status === 401) leave();
  else if (findings) findings.replaceChildren(Object.assign(document.createElement("p"), { className: "bad", textContent: refusal(ctx.response, ctx.text) }));
  else if (!isPart(ctx.sourceElement)) location.replace(ctx.request.action);
});
const marked = () => {
  const results = document.getElementById("sweep-results")?.dataset;
  return `${results?.recommended} ${results?.limits}`;
};
let recommended = marked();
document.addEventListener("htmx:after:swap", () => {
  const now = marked();
  if (now === recommended) return;
  // Other wishes, or a confirmation, may lead to another recommendation: the leaderboard and the pictures mark it, too.
  recommended = now;
  soon("results");
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && due) soon(due);
});
setInterval(() => {
  const polling = document.querySelector("[data-poll]");
  if (polling) soon(polling.dataset.poll);
}, POLL_MS);

// --- the state in the address -----------------------------------------------------------------------------------------

document.addEventListener("htmx:config:request", (event) => {
  const { ctx } = event.detail;
  ctx.askedAt = performance.now();
  // The sliders say what is wished; the rest of the page is as its address says, which may have changed since.
  if (ctx.sourceElement?.id === "what-if-form") return keep(ctx, [...KEPT, ...OF_BOARD].filter((name) => !WISHES.includes(name)));
  if (ctx.target?.id !== "sweep-board") return;
  keep(ctx, KEPT);
});

function keep(ctx, names) {
  const now = new URLSearchParams(location.search);
  const [path, query] = ctx.request.action.split("?");
  const asked = new URLSearchParams(query);
  for (const name of names) {
    asked.delete(name);
    ctx.request.body?.delete?.(name);
    for (const value of now.getAll(name)) asked.append(name, value);
  }
  ctx.request.action = `${path}?${asked}`;
}

/** While a slider moves, an answer for where it was does not set it back: the next one is asked for already. */
let wishedAt = 0;
document.addEventListener("input", (event) => {
  if (event.target.form?.id === "what-if-form") wishedAt = performance.now();
});
document.addEventListener("htmx:before:swap", (event) => {
  const { ctx } = event.detail;
  if (ctx.target?.id === "sweep-results" && wishedAt > ctx.askedAt) event.preventDefault();
});

/** Change the address without loading anything. */
function remember(change, how = "replaceState") {
  const url = new URL(location.href);
  change(url.searchParams);
  history[how](history.state, "", url);
}

document.addEventListener("change", (event) => {
  if (event.target.form?.id === "compare") {
    const chosen = event.target;
    remember((query) => {
      const others = query.getAll("trial").filter((number) => number !== chosen.value);
      query.delete("trial");
      for (const number of chosen.checked ? [...others, chosen.value] : others) query.append("trial", number);
    });
    fitComparison();
    return;
  }
  // A choice of a picture that is made before its script has come loads the page with it.
  const form = event.target.closest?.("form[data-auto], form[data-picture-form]:not(.auto, [data-inverted])");
  if (form) form.requestSubmit();
});

/** Say how many trials are chosen; let only what can be compared be sent. */
function fitComparison() {
  const form = document.getElementById("compare");
  if (!form) return;
  const chosen = new URLSearchParams(location.search).getAll("trial");
  for (const box of document.querySelectorAll("input[form=compare]")) box.checked = chosen.includes(box.value);
  const shown = new Set([...document.querySelectorAll("input[form=compare]")].map((box) => box.value));
  for (const hidden of form.querySelectorAll("input[type=hidden]")) hidden.remove();
  for (const number of chosen.filter((each) => !shown.has(each))) {
    form.append(Object.assign(document.createElement("input"), { type: "hidden", name: "trial", value: number }));
  }
  document.getElementById("compare-button").disabled = chosen.length < 2 || chosen.length > 10;
  document.getElementById("compare-says").textContent = chosen.length
    ? `${chosen.length} chosen: ${[...chosen].sort((a, b) => a - b).join(", ")}${chosen.length > 10 ? "; at most 10" : ""}`
    : "Choose 2 to 10 trials in the table.";
}
fitComparison();
for (const form of document.querySelectorAll("form[data-auto], #what-if-form")) form.classList.add("auto");
document.addEventListener("htmx:after:swap", () => {
  for (const form of document.querySelectorAll("form[data-auto], #what-if-form")) form.classList.add("auto");
});

// --- forms that call the API ------------------------------------------------------------------------------------------

/** What was refused last: it stays to be read, however often the live parts are shown anew. */
let refused = null;
const keyOf = (form) => `${form.dataset.method ?? "POST"} ${form.dataset.api}`;
const sayer = (form) => form?.querySelector(".refused") ?? document.getElementById("refused");
function showRefused() {
  if (!refused) return;
  const says = sayer([...document.querySelectorAll("form[data-api]")].find((form) => keyOf(form) === refused.key));
  if (says) Object.assign(says, { textContent: refused.text, hidden: false });
}
document.addEventListener("htmx:after:swap", showRefused);

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-api]");
  if (!form) return;
  event.preventDefault();
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
  refused = null;
  sayer(form).hidden = true;
  const buttons = form.querySelectorAll("button");
  const call = request(form);
  for (const button of buttons) button.disabled = true;
  try {
    const answer = await ("upload" in form.dataset ? sent(form, call) : fetch(form.dataset.api, call));
    const text = await answer.text();
    if (!answer.ok) throw new Error(refusal(answer, text));
    if (form.dataset.then) {
      const made = text && JSON.parse(text)[form.dataset.named ?? "id"];
      location.href = form.dataset.then + encodeURIComponent(made);
      return;
    }
    // A sweep that goes on again is watched again.
    if (document.getElementById("watch") || "stay" in form.dataset) soon("results");
    else location.reload();
    form.closest("details")?.removeAttribute("open");
  } catch (error) {
    refused = { key: keyOf(form), text: error.message };
    showRefused();
  } finally {
    const invalid = form.querySelector("[aria-invalid=true]") !== null;
    for (const button of buttons) button.disabled = invalid;
  }
});

function request(form) {
  const fields = new FormData(form);
  const method = form.dataset.method ?? "POST";
  if (form.dataset.yaml) {
    return { method, headers: { "Content-Type": "application/yaml" }, body: fields.get(form.dataset.yaml) };
  }
  if ("upload" in form.dataset) {
    // A field that is left empty takes the service's default.
    for (const [name, value] of [...fields]) if (value === "") fields.delete(name);
    return { method, body: fields };
  }
  if ("json" in form.dataset) {
    const lists = new Set([...form.querySelectorAll("[data-list]")].map((field) => field.name));
    const body = {};
    for (const [name, value] of fields) {
      if (lists.has(name)) (body[name] ??= []).push(value);
      else body[name] = form.elements[name].type === "number" ? Number(value) : value;
    }
    for (const { name, value } of form.querySelectorAll("[data-words]")) body[name] = value.split(/[\s,]+/).filter(Boolean);
    for (const { name, checked } of form.querySelectorAll("[data-flag]")) body[name] = checked;
    return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  }
  return { method };
}

/** Send a form with files as `fetch` would; its bar shows how much of them has gone, and then that they are read. */
function sent(form, { method, body }) {
  const shown = form.querySelector(".sending");
  const bar = shown.querySelector("progress");
  const words = shown.querySelector("span");
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(method, form.dataset.api);
    call.upload.addEventListener("progress", ({ loaded, total }) => {
      Object.assign(bar, { max: total, value: loaded });
      words.textContent = `${Math.floor((100 * loaded) / total)}% sent`;
    });
    call.upload.addEventListener("load", () => {
      bar.removeAttribute("value");
      words.textContent = "Reading it: splits, tokens and profile…";
    });
    call.addEventListener("load", () => resolve(new Response(call.response || null, { status: call.status })));
    call.addEventListener("error", () => reject(new Error("The connection broke off.")));
    call.addEventListener("loadend", () => (shown.hidden = true));
    shown.hidden = false;
    call.send(body);
  });
}

/** Fields that belong to one choice of a form are shown, and sent, with it alone. */
function fitChoice(form) {
  const chosen = form.elements.task.value;
  for (const part of form.querySelectorAll("[data-for]")) {
    const fits = part.dataset.for.split(" ").includes(chosen);
    Object.assign(part, { hidden: !fits, disabled: !fits });
  }
}
for (const form of document.querySelectorAll("form[data-upload]")) {
  fitChoice(form);
  form.addEventListener("change", () => fitChoice(form));
}

function refusal(answer, text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return `The service answered ${answer.status}.`;
  }
}

// --- the rest ---------------------------------------------------------------------------------------------------------

/** A link to something folded opens it. */
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
unfold();
window.addEventListener("hashchange", unfold);

/** A menu closes when something else is clicked, or by Escape. */
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest?.("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

for (const own of document.querySelectorAll("#editor-form, #reference")) import(own.dataset.script);

const pictures = document.getElementById("pictures");
if (pictures) import(pictures.dataset.script).then((module) => module.draw(pictures, remember));
