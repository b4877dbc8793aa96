// The reference of the API: each operation can be sent from its form, as who is logged in.

const MOST_CHARACTERS = 200_000;

document.getElementById("reference").addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-path]");
  if (!form) return;
  event.preventDefault();
  const { method, path, media } = form.dataset;
  const address = filled(form, path);
  if (method === "DELETE" && !confirm(`DELETE ${address}? This is carried out, and cannot be undone.`)) return;
  const button = form.querySelector("button");
  const answer = form.querySelector(".answer");
  button.disabled = true;
  try {
    const body = form.querySelector("textarea")?.value;
    const headers = body === undefined ? {} : { "Content-Type": media };
    const began = performance.now();
    const response = await fetch(address, { method, headers, body });
    show(answer, response, `${method} ${address}`, await read(response), performance.now() - began);
  } catch (error) {
    show(answer, { ok: false, status: "", statusText: error.message }, `${method} ${address}`, "", null);
  } finally {
    button.disabled = false;
  }
});

/** The address with what the form has for its path and query; what is left empty is left out. */
function filled(form, path) {
  const query = new URLSearchParams();
  let address = path;
  for (const field of form.querySelectorAll("[data-place]")) {
    if (field.dataset.place === "path") address = address.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value) query.append(field.name, field.value);
  }
  return query.size ? `${address}?${query}` : address;
}

async function read(response) {
  const kind = response.headers.get("content-type") ?? "";
  if (!/json|text|yaml|xml/.test(kind)) {
    const bytes = (await response.arrayBuffer()).byteLength;
    return bytes ? `${bytes.toLocaleString("en")} bytes of ${kind}` : "";
  }
  const text = await response.text();
  const shown = kind.includes("json") && text ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return shown.length > MOST_CHARACTERS ? `${shown.slice(0, MOST_CHARACTERS)}\n…` : shown;
}

function show(answer, response, request, text, milliseconds) {
  const words = answer.querySelector("p");
  words.className = response.ok ? "good" : "bad";
  words.textContent = `${response.status} ${response.statusText} · ${request}${milliseconds === null ? "" : ` · ${Math.round(milliseconds)} ms`}`.trim();
  const shown = answer.querySelector("pre");
  shown.hidden = !text;
  shown.firstChild.textContent = text;
  answer.hidden = false;
}
