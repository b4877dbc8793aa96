// The editor of sweep documents: CodeMirror in place of the page's text area, which keeps the text for the form and for
// the service's own check. What that check says is shown in the gutter; completion and explanations come from the JSON
// Schema. If CodeMirror does not load, the text area stays.

const form = document.getElementById("editor-form");
const area = document.getElementById("document");
const start = document.getElementById("submit");
/** Not there, as the button, for a token that may only read: nothing is checked then. */
const findings = document.getElementById("findings");

let view = null;
let showFindings = () => {};
/** The text that the service was asked about last. */
let asked = area.value;

/** Whether the text can be sent: `null` until the service has said it of the text as it is now. */
function judge(isValid) {
  area.setAttribute("aria-invalid", String(isValid === false));
  if (start) start.disabled = isValid !== true;
}

judge(null);
area.addEventListener("input", () => judge(null));
document.addEventListener("htmx:before:request", (event) => {
  if (event.detail.ctx.sourceElement === area) asked = area.value;
});
document.addEventListener("htmx:after:swap", read);
document.addEventListener("htmx:response:error", (event) => findings && event.detail.ctx.target === findings && judge(false));
read();

function read() {
  const said = findings?.querySelector("[data-verdict]");
  // What was said of an older text says nothing of a newer one.
  if (!said || asked !== area.value) return;
  judge(said.dataset.verdict === "valid");
  showFindings();
}

document.addEventListener("click", (event) => {
  const wanted = Number(event.target.closest?.("[data-go]")?.dataset.go);
  if (!wanted) return;
  event.preventDefault();
  if (view) go(wanted);
  else {
    const before = area.value.split("\n").slice(0, wanted - 1).join("\n").length + (wanted > 1 ? 1 : 0);
    const end = area.value.indexOf("\n", before);
    area.focus();
    area.setSelectionRange(before, end < 0 ? area.value.length : end);
  }
});

function go(number) {
  const line = view.state.doc.line(Math.min(number, view.state.doc.lines));
  view.focus();
  view.dispatch({ selection: { anchor: line.from, head: line.to }, scrollIntoView: true });
}

const [codemirror, { Hints }, schema] = await Promise.all([
  import(form.dataset.codemirror),
  import(form.dataset.hints),
  fetch("/v1/schemas/sweep.json").then((answer) => (answer.ok ? answer.json() : null)),
]);
const hints = schema && new Hints(schema, { dataset: form.dataset.datasets.split(" ").filter(Boolean) });
const {
  EditorState, EditorView, HighlightStyle, acceptCompletion, autocompletion, bracketMatching, closeBrackets, closeBracketsKeymap,
  defaultKeymap, highlightActiveLine, highlightActiveLineGutter, history, historyKeymap, hoverTooltip, indentOnInput, indentUnit,
  keymap, lineNumbers, lintGutter, lintKeymap, setDiagnostics, startCompletion, syntaxHighlighting, tags, yaml,
} = codemirror;

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null, tags.keyword, tags.atom], color: "var(--star)" },
  { tag: [tags.comment, tags.lineComment, tags.meta], color: "var(--quiet)", fontStyle: "italic" },
  { tag: [tags.separator, tags.punctuation, tags.squareBracket, tags.brace], color: "var(--quiet)" },
]);

const theme = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "var(--paper)", fontSize: "13px", minHeight: "16rem", maxHeight: "max(24rem, 100vh - 19rem)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", overflow: "auto" },
  ".cm-content": { padding: "8px 0", caretColor: "var(--ink)" },
  ".cm-line": { padding: "0 12px 0 4px" },
  ".cm-gutters": { backgroundColor: "var(--paper)", color: "var(--quiet)", borderRight: "0" },
  ".cm-lineNumbers .cm-gutterElement": { minWidth: "2.4em", padding: "0 8px 0 4px" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLine, &.cm-focused .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--accent-soft) 55%, transparent)" },
  ".cm-matchingBracket": { backgroundColor: "var(--accent-soft)", outline: "1px solid var(--line-strong)" },
  ".cm-gutter-lint": { width: "1.3em" },
  ".cm-gutter-lint .cm-gutterElement": { padding: "0 .2em" },
  // Its own markers are images in the style sheet, which the page's policy does not load.
  ".cm-lint-marker": { width: ".6em", height: ".6em", margin: ".45em auto 0", borderRadius: "50%" },
  ".cm-lint-marker.cm-lint-marker-error": { content: "normal", backgroundColor: "var(--bad)" },
  ".cm-lint-marker.cm-lint-marker-warning": { content: "normal", backgroundColor: "var(--warn)", borderRadius: "1px" },
  ".cm-lintRange-error": { backgroundImage: "none", borderBottom: "2px solid var(--bad)" },
  ".cm-lintRange-warning": { backgroundImage: "none", borderBottom: "2px dotted var(--warn)" },
  ".cm-tooltip": { color: "var(--ink)", backgroundColor: "var(--card)", border: "1px solid var(--line-strong)", borderRadius: "8px", boxShadow: "0 6px 24px rgb(0 0 0 / 16%)", overflow: "hidden", fontSize: "13px", maxWidth: "min(30rem, 88vw)" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", maxHeight: "16em" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "3px 10px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]": { backgroundColor: "var(--accent-soft)", color: "var(--ink)" },
  ".cm-completionMatchedText": { textDecoration: "none", color: "var(--accent)", fontWeight: "650" },
  ".cm-completionDetail": { fontStyle: "normal", color: "var(--quiet)", marginLeft: "1.2em", fontFamily: "system-ui, sans-serif", fontSize: "12px" },
  ".cm-tooltip.cm-completionInfo": { padding: "8px 12px", maxWidth: "24rem", lineHeight: "1.5" },
  ".cm-diagnostic": { padding: "8px 12px", borderLeft: "3px solid var(--bad)", lineHeight: "1.5" },
  ".cm-diagnostic-warning": { borderLeftColor: "var(--warn)" },
  ".help": { padding: "8px 12px", lineHeight: "1.5", fontFamily: "system-ui, sans-serif" },
  ".help p": { margin: "0" },
  ".help .title": { fontFamily: "var(--mono)", fontWeight: "650" },
  ".help .facts": { color: "var(--quiet)" },
});

/** Completion as the schema has it. */
function complete(context) {
  const text = context.state.doc.toString();
  const found = hints.complete(text, context.pos);
  const typed = found && context.pos > found.from;
  const behind = /[:[{,]\s*$|-\s$/.test(text.slice(0, context.pos).split("\n").at(-1));
  if (!found || !(context.explicit || typed || behind)) return null;
  return {
    from: found.from,
    to: found.to,
    validFor: /^[\w.-]*$/,
    options: found.options.map((option, index) => ({
      ...option,
      sortText: String(index).padStart(4, "0"),
      info: option.info ? () => Object.assign(document.createElement("div"), { textContent: option.info }) : undefined,
      apply: (at, completion, from, to) => {
        at.dispatch({ changes: { from, to, insert: option.apply }, selection: { anchor: from + option.apply.length }, userEvent: "input.complete" });
        if (/[:-]\s+$/.test(option.apply)) setTimeout(() => startCompletion(at));
      },
    })),
  };
}

/** What the word under the pointer means. */
function explain(at, position) {
  const found = hints.describe(at.state.doc.toString(), position);
  if (!found) return null;
  return {
    pos: found.from,
    end: found.to,
    above: true,
    create() {
      const dom = Object.assign(document.createElement("div"), { className: "help" });
      for (const name of ["title", "facts", "text"]) {
        if (found[name]) dom.append(Object.assign(document.createElement("p"), { className: name, textContent: found[name] }));
      }
      return { dom };
    },
  };
}

/**
 * Put in what is typed over several lines. Left to it, Chrome copies the first one's style to the new text's element,
 * which the page's policy refuses.
 */
function replaceLines(event, at) {
  const { from, to } = at.state.selection.main;
  const isOver = event.inputType === "insertText" && event.data && at.state.doc.lineAt(from).to < to;
  if (!isOver) return false;
  event.preventDefault();
  at.dispatch(at.state.replaceSelection(event.data), { userEvent: "input.type" });
  return true;
}

/** The problems beside the editor as CodeMirror has them. */
function diagnostics(doc) {
  return [...(findings?.querySelectorAll("[data-line]") ?? [])].map((item) => {
    const { line: number, column, end, severity } = item.dataset;
    const line = doc.line(Math.min(Number(number), doc.lines));
    // The service counts characters, this editor UTF-16 units.
    const offset = (characters) => [...line.text].slice(0, Number(characters)).join("").length;
    const from = line.from + offset(column);
    const to = end ? line.from + offset(end) : line.to;
    const message = [...item.querySelectorAll("[data-says]")].map((each) => each.textContent).join(" ");
    return { from: Math.min(from, to), to, severity, message };
  });
}

showFindings = () => {
  if (view) view.dispatch(setDiagnostics(view.state, diagnostics(view.state.doc)));
};

const send = () => {
  if (start && !start.disabled) form.requestSubmit(start);
  return true;
};

const host = Object.assign(document.createElement("div"), { id: "editor" });
area.before(host);
const label = document.getElementById("document-label");
view = new EditorView({
  // Within a shadow root CodeMirror adopts style sheets: the page's policy allows no style elements.
  parent: host.attachShadow({ mode: "open" }),
  state: EditorState.create({
    doc: area.value,
    extensions: [
      theme,
      syntaxHighlighting(colours),
      lineNumbers(),
      lintGutter(),
      history(),
      yaml(),
      indentUnit.of("  "),
      indentOnInput(),
      bracketMatching(),
      closeBrackets(),
      highlightActiveLine(),
      highlightActiveLineGutter(),
      hints ? [autocompletion({ override: [complete], icons: false }), hoverTooltip(explain)] : [],
      keymap.of([{ key: "Tab", run: acceptCompletion }, { key: "Mod-Enter", run: send }, ...closeBracketsKeymap, ...defaultKeymap, ...historyKeymap, ...lintKeymap]),
      EditorView.contentAttributes.of({ "aria-label": label.firstChild.textContent.trim(), "aria-multiline": "true", tabindex: "0" }),
      EditorView.domEventHandlers({ beforeinput: replaceLines }),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged) return;
        area.value = update.state.doc.toString();
        area.dispatchEvent(new Event("input", { bubbles: true }));
      }),
    ],
  }),
});
area.hidden = true;
label.addEventListener("click", (event) => {
  if (event.target.closest("a")) return;
  event.preventDefault();
  view.focus();
});
showFindings();
form.dataset.ready = "";
