// What may stand where in a sweep document, from its JSON Schema: for completion and for what is shown beside a word.
// Nothing here knows the editor: `placeAt` reads a text, perhaps unfinished, `Hints` a schema.

/**
 * Where a position of a YAML text is. `role` is what stands there: "key", "value", or "either"; `path` is that of the
 * mapping around a key, or of the value itself; `from` and `to` bound the word; `keys` are the names beside a key.
 * Null in comments and where nothing can stand. It follows indentation and brackets, so that it needs no whole text.
 */
export function placeAt(text, position) {
  return new Scan(text, position).place();
}

const KEY = /^("[^"\n]*"|'[^'\n]*'|[^\s#,[\]{}:"'-][^:#\n]*?|-[^\s:#][^:#\n]*?)[ \t]*:(?=\s|$)/;
const bare = (word) => word.replace(/^["']|["']$/g, "");

class Scan {
  constructor(text, position) {
    this.text = text;
    this.position = position;
    this.found = null;
    this.keys = new Map();
    this.scalars = new Map();
    /** Block collections around the line, the innermost last. */
    this.open = [{ kind: "map", path: [], indent: 0, key: null, filled: false }];
  }

  place() {
    const { text } = this;
    for (let start = 0; start <= text.length; ) {
      let end = text.indexOf("\n", start);
      if (end < 0) end = text.length;
      start = this.line(start, end) + 1;
    }
    const { found } = this;
    return found && { ...found, keys: this.keysOf(found.path), scalars: this.scalars };
  }

  keysOf(path) {
    const name = JSON.stringify(path);
    if (!this.keys.has(name)) this.keys.set(name, new Set());
    return this.keys.get(name);
  }

  covers(from, to) {
    return !this.found && from <= this.position && this.position <= to;
  }

  find(role, path, from, to, isFlow = false) {
    this.found = { role, path, from, to, isFlow };
  }

  /** Read a line; the end of what was read, which may be on a later one. */
  line(start, end) {
    const { text } = this;
    let at = start;
    while (text[at] === " ") at += 1;
    if (at >= end || text[at] === "#") {
      if (this.covers(start, at)) this.blank(this.position - start);
      return end;
    }
    let item = null;
    while (text[at] === "-" && (at + 1 >= end || text[at + 1] === " ")) {
      item = this.item(at - start, item);
      at += 1;
      while (text[at] === " ") at += 1;
      if (this.covers(start, Math.min(at, end)) && at >= end) this.find("either", item, this.position, this.position);
    }
    if (at >= end) return end;
    const key = KEY.exec(text.slice(at, end));
    return key ? this.pair(key, at, start, end, item) : this.content(at, start, end, item);
  }

  /** A dash in a column: the path of its item. */
  item(column, around) {
    const { open } = this;
    while (open.at(-1).indent > column) open.pop();
    let top = open.at(-1);
    if (around || top.kind !== "seq" || top.indent !== column) {
      top = { kind: "seq", path: around ?? this.below(top), indent: column, count: -1 };
      open.push(top);
    }
    top.count += 1;
    return [...top.path, top.count];
  }

  below(container) {
    return [...container.path, container.kind === "seq" ? container.count : container.key];
  }

  /** The mapping that a key in a column belongs to. */
  mapping(column, item) {
    const { open } = this;
    if (!item) {
      while (open.length > 1 && (open.at(-1).indent > column || (open.at(-1).kind === "seq" && open.at(-1).indent === column))) open.pop();
    }
    const top = open.at(-1);
    if (!item && top.kind === "map" && top.indent === column) return top;
    const made = { kind: "map", path: item ?? this.below(top), indent: column, key: null, filled: false };
    open.push(made);
    return made;
  }

  pair(match, at, start, end, item) {
    const { text } = this;
    const map = this.mapping(at - start, item);
    const key = bare(match[1]);
    this.keysOf(map.path).add(key);
    Object.assign(map, { key, filled: false });
    if (this.covers(at, at + match[1].length)) this.find("key", map.path, at, at + match[1].length);
    const after = at + match[0].length;
    return this.value(after, end, [...map.path, key], map);
  }

  /** What follows a colon. */
  value(after, end, path, map) {
    const { text } = this;
    let at = after;
    while (text[at] === " ") at += 1;
    if (at >= end || (text[at] === "#" && at > after)) {
      if (this.covers(after + 1, Math.min(at, end))) this.find("value", path, this.position, this.position);
      return end;
    }
    map.filled = true;
    if (text[at] === "{" || text[at] === "[") {
      if (this.covers(after + 1, at)) this.find("value", path, at, at);
      return this.flow(at, path);
    }
    if (/^[|>][-+0-9]*\s*$/.test(text.slice(at, end))) return this.blockScalar(end, map.indent);
    const written = text.slice(at, end).replace(/\s+#.*$/, "").trimEnd();
    this.scalars.set(path.join("."), bare(written));
    if (this.covers(after + 1, at + written.length)) this.find("value", path, at, at + written.length);
    return end;
  }

  /** A line without a key: a flow collection, a scalar, or a key that is not finished. */
  content(at, start, end, item) {
    const { text } = this;
    const column = at - start;
    if (text[at] === "{" || text[at] === "[") {
      const top = this.open.at(-1);
      return this.flow(at, item ?? this.below(top));
    }
    const length = text.slice(at, end).replace(/\s+#.*$/, "").trimEnd().length;
    if (!this.covers(at, at + length)) return end;
    if (item) this.find("either", item, at, at + length);
    else this.blank(column, at, at + length);
    return end;
  }

  /** Where a key in a column of a line would belong. */
  blank(column, from = this.position, to = this.position) {
    const around = this.open.findLast((each) => each.indent < column || (each.indent === column && each.kind === "map"));
    if (!around) return;
    if (around.kind === "map" && around.indent === column) this.find("key", around.path, from, to);
    else if (around.kind === "map" && around.key !== null && !around.filled) this.find("either", this.below(around), from, to);
  }

  blockScalar(end, indent) {
    const { text } = this;
    let last = end;
    while (last < text.length) {
      let next = text.indexOf("\n", last + 1);
      if (next < 0) next = text.length;
      const line = text.slice(last + 1, next);
      if (line.trim() && line.search(/\S/) <= indent) break;
      last = next;
    }
    return last;
  }

  /** Read a flow collection; the end of the line in which it ends. */
  flow(start, path) {
    const { text } = this;
    const open = [];
    const valuePath = () => (open.length ? this.below(open.at(-1)) : path);
    const mark = (from, to) => {
      const top = open.at(-1);
      if (top.kind === "map" && !top.isValue) this.find("key", top.path, from, to, true);
      else this.find("value", valuePath(), from, to, true);
    };
    let at = start;
    let word = "";
    while (at < text.length) {
      const character = text[at];
      if (open.length && !this.found && at >= this.position && !/[^\s,[\]{}:#]/.test(character)) mark(this.position, this.position);
      if (character === "\n" && /^[A-Za-z_]\w*:(\s|$)/.test(text.slice(at + 1, at + 80))) return at;
      if (character === "#" && /\s/.test(text[at - 1])) {
        const end = text.indexOf("\n", at);
        at = end < 0 ? text.length : end;
      } else if (character === "{" || character === "[") {
        open.push({ kind: character === "{" ? "map" : "seq", path: valuePath(), key: null, isValue: false, count: 0 });
        at += 1;
      } else if (character === "}" || character === "]") {
        open.pop();
        at += 1;
        if (!open.length) {
          const end = text.indexOf("\n", at);
          return end < 0 ? text.length : end;
        }
      } else if (character === ",") {
        const top = open.at(-1);
        Object.assign(top, { isValue: false, count: top.count + 1 });
        at += 1;
      } else if (character === ":" && open.at(-1).kind === "map") {
        Object.assign(open.at(-1), { key: word, isValue: true });
        this.keysOf(open.at(-1).path).add(word);
        at += 1;
      } else if (/\s/.test(character)) at += 1;
      else {
        const end = this.wordEnd(at);
        if (this.covers(at, end)) mark(at, end);
        word = bare(text.slice(at, end).trim());
        at = end;
      }
    }
    if (open.length && this.covers(start + 1, text.length)) mark(this.position, this.position);
    return text.length;
  }

  wordEnd(at) {
    const { text } = this;
    const quote = /["']/.test(text[at]) ? text[at] : null;
    const found = quote
      ? new RegExp(`^${quote}[^${quote}\\n]*${quote}?`).exec(text.slice(at))
      : /^(?:[^\n,[\]{}:#]|:(?=[^\s,[\]{}])|(?<=\S)#)+/.exec(text.slice(at));
    return at + Math.max(1, (found?.[0] ?? "").trimEnd().length);
  }
}

const SIMPLE = new Set(["string", "number", "integer", "boolean", "null"]);
const types = (node) => [node.type ?? []].flat();
const isSpace = (node) => node.properties?.values !== undefined && node.properties?.when !== undefined;

/** Answers from the schema of sweep documents. `known` has further values by their paths, such as names of datasets. */
export class Hints {
  constructor(schema, known = {}) {
    this.schema = schema;
    this.known = known;
    this.metrics = this.at(["objectives", 0, "metric"], new Map()).filter((node) => node.const !== undefined);
    this.parameters = Object.entries(schema.$defs).filter(([, node]) => node.anyOf?.some((each) => each.properties?.when));
  }

  /** What can be put in at a position: {from, to, options}, each option with label, detail, info and how it is put in. */
  complete(text, position) {
    const place = placeAt(text, position);
    if (!place) return null;
    const words = this.words(place, text, position);
    if (words) return words;
    const column = place.from - (text.lastIndexOf("\n", place.from - 1) + 1);
    const options = [];
    if (place.role !== "value") options.push(...this.keyOptions(place, text, column));
    if (place.role !== "key") options.push(...this.valueOptions(place));
    return options.length ? { from: place.from, to: place.to, options } : null;
  }

  /** What the word at a position means: {from, to, title, facts, text}; null where the schema says nothing. */
  describe(text, position) {
    const place = placeAt(text, position);
    if (!place || place.from === place.to) return null;
    const word = bare(text.slice(place.from, place.to));
    const bounds = { from: place.from, to: place.to };
    if (place.role === "key") {
      const path = [...place.path, word];
      const nodes = this.at(path, place.scalars);
      return nodes.length ? { ...bounds, title: path.join("."), facts: facts(nodes), text: description(nodes) } : null;
    }
    const chosen = this.at(place.path, place.scalars).find((node) => node.const === word && node.description);
    return chosen ? { ...bounds, title: word, facts: "", text: chosen.description } : null;
  }

  /** The schemas that hold at a path, references and alternatives taken apart. */
  at(path, scalars) {
    let nodes = [...flatten(this.schema, this.schema), ...this.conditional(scalars)];
    for (const step of path) {
      const children = nodes.flatMap((node) => child(node, step));
      if (children.includes(false)) return [];
      nodes = children.flatMap((each) => flatten(each, this.schema));
    }
    return nodes;
  }

  /** What holds for the document's task. */
  conditional(scalars) {
    return (this.schema.allOf ?? [])
      .filter((each) => each.if?.properties?.task?.const === scalars.get("task") && scalars.has("task"))
      .flatMap((each) => flatten(each.then ?? {}, this.schema));
  }

  keyOptions(place, text, column) {
    const nodes = this.at(place.path, place.scalars);
    const word = text.slice(place.from, place.to);
    // It says what the fields of parameters mean; which of them a parameter has, the parameter says.
    const meanings = this.schema.$defs.one_form;
    const names = new Set(nodes.filter((node) => node !== meanings).flatMap((node) => Object.keys(node.properties ?? {})));
    const required = new Set(nodes.flatMap((node) => node.required ?? []));
    const hasColon = /^[ \t]*:/.test(text.slice(place.to));
    return [...names]
      .filter((name) => (name === word || !place.keys.has(name)) && (!name.includes(".") || word.includes(".")))
      .map((name) => [name, this.at([...place.path, name], place.scalars)])
      .filter(([, found]) => found.length && !found.some((node) => node.const === false))
      .map(([name, found]) => ({
        label: name,
        type: "property",
        detail: required.has(name) ? "required" : "",
        info: description(found),
        apply: hasColon ? name : name + opening(found, place.isFlow, column),
      }));
  }

  valueOptions(place) {
    const nodes = this.at(place.path, place.scalars);
    const fallback = nodes.find((node) => node.default !== undefined)?.default;
    const options = new Map();
    const add = (value, more = {}) => {
      const label = typeof value === "object" ? flowYaml(value) : String(value);
      if (!options.has(label)) options.set(label, { label, type: "enum", apply: label, detail: value === fallback ? "default" : "", info: "", ...more });
    };
    for (const value of this.known[place.path.join(".")] ?? []) add(value);
    for (const node of nodes) {
      if (node.const !== undefined) add(node.const, { info: node.description ?? "" });
      for (const value of node.enum ?? []) add(value);
      if (types(node).includes("boolean")) [true, false].forEach((value) => add(value, { type: "keyword" }));
    }
    for (const example of nodes.flatMap((node) => node.examples ?? [])) {
      if (typeof example === "object" && nodes.some(isSpace)) add(example, { type: "class", detail: "search" });
    }
    return [...options.values()];
  }

  /** Names within an expression; null where no expression stands. */
  words(place, text, position) {
    const last = place.path.at(-1);
    const ofMetrics = place.path.length === 2 && place.path[0] === "constraints";
    const ofParameters = (place.path.length === 2 && place.path[0] === "rules") || last === "when" || last === "derived";
    if (place.role === "key" || !(ofMetrics || ofParameters)) return null;
    const from = position - /[\w.]*$/.exec(text.slice(place.from, position))[0].length;
    const names = ofMetrics
      ? this.metrics.map((node) => [node.const, node])
      : this.parameters.filter(([name]) => !name.startsWith("inference."));
    return { from, to: position, options: names.map(([label, node]) => ({ label, type: "variable", detail: "", info: node.description ?? "", apply: label })) };
  }
}

/** A schema, what it refers to, and its alternatives; conditions on other values are left out. */
function flatten(node, root, depth = 0) {
  if (typeof node !== "object" || depth > 12) return [];
  const referred = node.$ref ? [node.$ref.slice(2).split("/").reduce((part, step) => part[step.replaceAll("~1", "/").replaceAll("~0", "~")], root)] : [];
  const parts = [...referred, ...(node.allOf ?? []).filter((each) => !each.if), ...(node.anyOf ?? []), ...(node.oneOf ?? [])];
  return [node, ...parts.flatMap((each) => flatten(each, root, depth + 1))];
}

function child(node, step) {
  if (typeof step === "number") return [node.prefixItems?.[step] ?? node.items].filter((each) => each !== undefined);
  if (node.properties && Object.hasOwn(node.properties, step)) return [node.properties[step]];
  const pattern = Object.keys(node.patternProperties ?? {}).find((each) => new RegExp(each, "u").test(step));
  if (pattern !== undefined) return [node.patternProperties[pattern]];
  return typeof node.additionalProperties === "object" ? [node.additionalProperties] : [];
}

function description(nodes) {
  return nodes.find((node) => node.description && node.const === undefined)?.description ?? "";
}

/** Type, bounds and default in a few words. */
function facts(nodes) {
  const said = [];
  const choices = [...new Set(nodes.flatMap((node) => node.enum ?? (node.const !== undefined && node.const !== "default_space" ? [node.const] : [])))];
  const numeric = nodes.find((node) => types(node).some((type) => type === "integer" || type === "number"));
  if (choices.length && choices.length <= 16) said.push(choices.join(", "));
  else if (numeric) {
    const low = numeric.minimum ?? numeric.exclusiveMinimum;
    const range = [low === undefined ? "" : `from ${low}`, numeric.maximum === undefined ? "" : `to ${numeric.maximum}`].filter(Boolean).join(" ");
    said.push(`${types(numeric)[0]} ${range}`.trim());
  } else if (nodes.some((node) => types(node).includes("boolean"))) said.push("true or false");
  const fallback = nodes.find((node) => node.default !== undefined)?.default;
  if (fallback !== undefined && fallback !== null) said.push(`default ${fallback}`);
  return said.join(" · ");
}

/** What follows a name that is put in: a line below for what cannot stand behind it. */
function opening(nodes, isFlow, column) {
  const isSimple = nodes.some((node) => types(node).some((type) => SIMPLE.has(type)) || node.enum || node.const !== undefined || isSpace(node));
  if (isFlow || isSimple) return ": ";
  const indent = " ".repeat(column + 2);
  if (nodes.some((node) => types(node).includes("array"))) return `:\n${indent}- `;
  return nodes.some((node) => types(node).includes("object")) ? `:\n${indent}` : ": ";
}

function flowYaml(value) {
  if (Array.isArray(value)) return `[${value.map(flowYaml).join(", ")}]`;
  if (value && typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${name}: ${flowYaml(each)}`).join(", ")}}`;
  // YAML reads a number with an exponent as one only where it has a point and a sign.
  return typeof value === "number" ? String(value).replace(/^(-?\d+)e/, "$1.0e").replace(/e(\d)/, "e+$1") : String(value);
}
