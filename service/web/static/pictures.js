// The pictures of a sweep, drawn by ECharts from what the API answers: at most some thousand points, whatever there is.
// Each has a sentence that says what it shows, and a table with its numbers.

const EMPTY = "–";
const TICK_CHARACTERS = 14;
/** Of a small picture: what stands beside its axis, and how wide a letter of a label is. */
const SIDE_PIXELS = 46;
const CHARACTER_PIXELS = 6.4;
const FEW_VALUES = 8;
const MOST_LABELS = 30;
/** Names that one request of columns may have. */
const MOST_COLUMNS = 40;
const COUNTED = ["parameter_count", "flops"];
const COUNTS = [[1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"], [1e12, "T"]];
const BYTES = [[1, "B"], [2 ** 10, "KiB"], [2 ** 20, "MiB"], [2 ** 30, "GiB"]];
const TIMES = [[1, "s"], [60, "min"], [3600, "h"], [86400, "d"]];
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

/** Draw the pictures in `root`'s page, and again when `results` are announced, the colours change or a choice does. */
export async function draw(root, remember) {
  const { sweep, facts, echarts: library } = root.dataset;
  const echarts = await import(library);
  const page = new Page(echarts, sweep, JSON.parse(facts), remember);
  page.listen();
  page.refresh();
}

class Page {
  constructor(echarts, sweep, facts, remember) {
    this.echarts = echarts;
    this.sweep = sweep;
    this.facts = facts;
    this.remember = remember;
    this.pictures = [...document.querySelectorAll("[data-picture]")].map(
      (element) => new KINDS[element.dataset.picture](this, element),
    );
  }

  listen() {
    document.body.addEventListener("results", () => this.refresh());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    window.addEventListener("popstate", () => this.restore());
    document.addEventListener("change", (event) => {
      const form = event.target.closest?.("[data-picture-form]");
      if (form) this.choose(form);
    });
    for (const form of document.querySelectorAll("[data-picture-form]")) {
      form.classList.add("auto");
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.choose(form);
      });
    }
    for (const tab of document.querySelectorAll("[data-show]")) {
      tab.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        this.remember((query) => query.set("picture", tab.dataset.show), "pushState");
        this.restore();
      });
    }
  }

  /** What a form says goes into the address; then what is shown is drawn from there. */
  choose(form) {
    this.remember((query) => {
      const inverted = form.dataset.inverted;
      if (inverted) {
        query.delete(inverted);
        for (const box of form.querySelectorAll("input[type=checkbox]:not(:checked)")) query.append(inverted, box.value);
        query.set("picture", "parallel");
        return;
      }
      for (const [name, value] of new FormData(form)) query.set(name, value);
    }, "pushState");
    this.refresh();
  }

  /** Show what the address says: the panel, and the choices in the forms. */
  restore() {
    const query = new URLSearchParams(location.search);
    const shown = query.get("picture") ?? document.getElementById("picture-tabs").dataset.usual;
    for (const panel of document.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== shown;
    for (const tab of document.querySelectorAll("[data-show]")) {
      if (tab.dataset.show === shown) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
    }
    for (const select of document.querySelectorAll("[data-picture-form] select")) {
      select.value = query.get(select.name) ?? select.dataset.usual;
    }
    for (const box of document.querySelectorAll("[data-inverted=hide] input[type=checkbox]")) {
      box.checked = !query.getAll("hide").includes(box.value);
    }
    this.refresh();
  }

  refresh() {
    for (const picture of this.pictures) if (picture.isShown) picture.refresh();
  }

  redraw() {
    for (const picture of this.pictures) if (picture.isShown) picture.redraw();
  }

  async get(path, query) {
    const answer = await fetch(`/v1/sweeps/${this.sweep}/${path}?${new URLSearchParams(query)}`);
    if (answer.ok) return answer.json();
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail ?? `the service answered ${answer.status}`);
  }

  label(name) {
    return this.facts.names[name]?.label ?? name;
  }

  goal(name) {
    return this.facts.names[name]?.goal ?? "";
  }

  /** The unit in which an axis that holds these values is drawn: its name, and how much of the metric's own it is. */
  unit(name, values) {
    const steps = this.facts.names[name]?.scale ?? [[1, ""]];
    const most = Math.max(...values.filter((value) => typeof value === "number").map(Math.abs));
    const [size, text] = steps.findLast(([each]) => most >= each) ?? steps[0];
    return { size, text };
  }

  /** Whether an axis is logarithmic: the parameter is searched so, or positive values spread far. */
  isLog(name, low, high) {
    return low > 0 && (this.facts.names[name]?.log || high / low > this.facts.axes.log_ratio);
  }

  /** The ends of an axis and its marks, which are round in the unit in which they are written. */
  ticks([low, high], unit, isLog, most = 6, whole = false) {
    if (isLog) return { min: low, max: high };
    const rough = (high - low) / unit.size / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const exact = this.facts.axes.nice_steps.find((each) => each * power >= rough * 0.999) * power * unit.size;
    // Between whole numbers there is nothing to mark.
    const interval = whole ? Math.max(1, Math.ceil(exact)) : exact;
    return { min: Math.floor(low / interval) * interval, max: Math.ceil(high / interval) * interval, interval };
  }

  /** The title of an axis: what it is, in which unit it is drawn, and where better is. */
  title(name, unit) {
    const arrow = { minimize: " ↓", maximize: " ↑" }[this.goal(name)] ?? "";
    return `${this.label(name)}${unit.text ? ` (${unit.text})` : ""}${arrow}`;
  }

  /** A value with its unit, as the tables have it. */
  value(name, given) {
    if (given === null || given === undefined) return EMPTY;
    if (typeof given !== "number") return String(given);
    const unit = this.facts.names[name]?.unit ?? "";
    if (unit === "B") return bytes(given);
    if (unit === "s") return duration(given);
    if (COUNTED.includes(name.split("@")[0])) return count(given);
    if (name === "accuracy") return share(given, 2);
    if (unit === "1/s") return `${count(given)}/s`;
    return unit ? `${number(given)} ${unit}` : number(given);
  }

}

// --- pictures ---------------------------------------------------------------------------------------------------------

class Picture {
  constructor(page, element) {
    this.page = page;
    this.element = element;
    this.says = document.getElementById(`says-${element.dataset.picture}`);
    this.numbers = document.getElementById(`numbers-${element.dataset.picture}`);
    this.charts = new Map();
    this.asked = 0;
    new ResizeObserver(() => {
      for (const chart of this.charts.values()) chart.resize();
    }).observe(element);
  }

  get isShown() {
    return !this.element.closest("[hidden]");
  }

  async refresh() {
    const asked = ++this.asked;
    this.element.setAttribute("aria-busy", "true");
    try {
      const data = await this.load();
      if (asked !== this.asked) return;
      this.data = data;
      this.redraw();
    } catch (error) {
      if (asked === this.asked) this.say(`It could not be drawn: ${error.message}. It is tried again with the next result.`, true);
    } finally {
      if (asked === this.asked) this.element.removeAttribute("aria-busy");
    }
  }

  redraw() {
    if (this.data === undefined) return;
    const nothing = this.nothing(this.data);
    this.element.classList.toggle("blank", Boolean(nothing));
    this.tabulate(nothing ? null : this.table(this.data));
    if (nothing) {
      this.keep([]);
      this.say(nothing);
    } else {
      this.say(this.paint(this.data, theme()));
    }
  }

  say(text, isError = false) {
    this.says.textContent = text;
    this.says.classList.toggle("bad", isError);
  }

  /** The chart in `element`, made when there is none. */
  chart(element = this.element) {
    let chart = this.charts.get(element);
    if (!chart) {
      chart = this.page.echarts.init(element, null, { renderer: "canvas" });
      this.charts.set(element, chart);
      this.made?.(chart);
    }
    return chart;
  }

  /** Forget the charts in other elements than these. */
  keep(elements) {
    for (const [element, chart] of this.charts) {
      if (elements.includes(element)) continue;
      chart.dispose();
      this.charts.delete(element);
    }
  }

  tabulate(table) {
    if (!this.numbers) return;
    this.numbers.hidden = !table;
    const body = this.numbers.querySelector("tbody");
    if (!table) return;
    this.numbers.querySelector("thead").replaceChildren(cells("th", table.head, "col"));
    body.replaceChildren(...table.rows.map((row) => cells("td", row)));
  }
}

class Tradeoff extends Picture {
  async load() {
    this.x = document.getElementById("axis-x").value;
    this.y = document.getElementById("axis-y").value;
    this.settings = null;
    return this.page.get("tradeoff", { x: this.x, y: this.y });
  }

  /** The parameters of the drawn trials, by trial: asked for when the first one is pointed at. */
  async parameters() {
    const { parameters } = this.page.facts;
    if (!parameters.length) return new Map();
    const metrics = [this.x, this.y].filter((name) => name !== "number");
    const names = [...new Set([...metrics, ...parameters])].slice(0, MOST_COLUMNS);
    const found = await this.page.get("columns", [...names.map((name) => ["name", name]), ["limit", "2000"]]);
    const shown = names.filter((name) => !metrics.includes(name));
    return new Map(
      found.trial.map((trial, index) => [trial, shown.map((name) => [name, found.values[name][index]]).filter(([, value]) => value !== null)]),
    );
  }

  /** What a point is: its metrics, and its parameters as soon as they have come. */
  tip(point, remark, ticket, show) {
    const { page, x, y } = this;
    const make = (settings) =>
      card(`trial ${point.number}`, [remark], [
        [page.label(x), page.value(x, point.value[0])],
        [page.label(y), page.value(y, point.value[1])],
        ...settings.map(([name, value]) => [name, page.value(name, value)]),
      ]);
    this.settings ??= this.parameters().catch(() => new Map());
    this.settings.then((known) => show(ticket, make(known.get(point.trial) ?? [])));
    return make([]);
  }

  made(chart) {
    chart.on("click", ({ data }) => {
      if (data?.trial) location.href = `/trials/${data.trial}`;
    });
  }

  nothing({ sample }) {
    if (sample.trial.length) return "";
    return document.querySelector("[data-ended]") ? "No trial has both values." : "The first trial will appear here when it has ended.";
  }

  points({ sample, tied: ties }) {
    const recommended = document.getElementById("sweep-results")?.dataset.recommended;
    const at = (name) => (name === "number" ? sample.number : sample.values[name]);
    const [across, up] = [at(this.x), at(this.y)];
    const points = { plain: [], infeasible: [], tied: [], front: [], recommended: [] };
    const tied = new Set(ties);
    for (const [index, trial] of sample.trial.entries()) {
      const kind =
        trial === recommended ? "recommended"
        : !sample.feasible[index] ? "infeasible"
        : sample.rank[index] === 1 ? "front"
        : tied.has(trial) ? "tied"
        : "plain";
      points[kind].push({ value: [across[index], up[index]], trial, number: sample.number[index], kind });
    }
    return points;
  }

  paint(data, colours) {
    const { page, x, y } = this;
    const points = this.points(data);
    // Limits that are tried out stand beside those of the sweep.
    const tried = JSON.parse(document.getElementById("sweep-results")?.dataset.limits ?? "[]");
    data = { ...data, limits: [...data.limits, ...tried.filter(({ metric }) => metric === x || metric === y)] };
    const all = Object.values(points).flat();
    const within = (name) => data.limits.filter((limit) => limit.metric === name).map((limit) => limit.value);
    const values = { x: [...all.map((point) => point.value[0]), ...within(x)], y: [...all.map((point) => point.value[1]), ...within(y)] };
    const total = data.sample.total;
    const many = data.sample.trial.length > 400;
    const size = { plain: many ? 5 : 8, infeasible: many ? 5 : 8, tied: 10, front: 11, recommended: 20 };
    const styles = {
      plain: { color: colours.mark, opacity: many ? 0.55 : 0.85 },
      infeasible: { color: "transparent", borderColor: colours.mark, borderWidth: 1.5, opacity: many ? 0.6 : 1 },
      tied: { color: colours.card, borderColor: colours.front, borderWidth: 2 },
      front: { color: colours.front, borderColor: colours.card, borderWidth: 1 },
      recommended: { color: colours.star, borderColor: colours.card, borderWidth: 1.5 },
    };
    const names = { plain: "dominated", infeasible: "not feasible", tied: "tied with the front within noise", front: "front of all objectives", recommended: "recommended" };
    const series = Object.entries(points).map(([kind, some]) => ({
      type: "scatter",
      name: names[kind],
      data: some,
      symbol: kind === "recommended" ? STAR : "circle",
      symbolSize: size[kind],
      itemStyle: styles[kind],
      emphasis: { scale: 1.4, itemStyle: { borderColor: colours.ink, borderWidth: 1.5 } },
      z: { plain: 2, infeasible: 2, tied: 3, front: 4, recommended: 5 }[kind],
      cursor: "pointer",
      label: {
        show: kind === "recommended" || (kind === "front" && some.length <= MOST_LABELS),
        formatter: ({ data: point }) => String(point.number),
        // The edge goes on to the right and to the worse: the other side of a point is free.
        position: page.goal(y) === "maximize" ? "top" : "bottom",
        distance: 3,
        fontSize: 11,
        fontWeight: kind === "recommended" ? 700 : 400,
        color: kind === "recommended" ? colours.star : colours.ink,
        textBorderColor: colours.card,
        textBorderWidth: 2,
      },
      labelLayout: { hideOverlap: true },
    }));
    const edge = data.edge.map((point) => [point[x], point[y]]);
    series.push({
      type: "line",
      name: "edge of these two",
      data: edge,
      step: page.goal(x) === "maximize" ? "start" : "end",
      symbol: "none",
      silent: true,
      lineStyle: { color: colours.front, width: 1.5, opacity: 0.6 },
      itemStyle: { color: colours.front },
      z: 3,
    });
    series.push({
      type: "line",
      name: "limit",
      data: [],
      lineStyle: { color: colours.bad, type: "dashed" },
      itemStyle: { color: colours.bad },
      markLine: {
        symbol: "none",
        silent: true,
        lineStyle: { color: colours.bad, type: [5, 4], width: 1.3 },
        label: { color: colours.bad, formatter: ({ name }) => name, fontSize: 11, position: "insideEndTop", distance: 4 },
        data: data.limits.map((limit) => ({
          name: limit.constraint,
          [limit.metric === x ? "xAxis" : "yAxis"]: limit.value,
        })),
      },
    });
    this.chart().setOption(
      {
        ...base(colours),
        grid: { left: 8, right: 20, top: 36, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "all" },
        legend: {
          ...legend(colours),
          data: [
            ...["recommended", "front", ...(points.tied.length ? ["tied"] : []), "plain", "infeasible"].map((kind) => ({ name: names[kind], itemStyle: { ...styles[kind], opacity: 1 } })),
            ...(edge.length > 1 ? [{ name: "edge of these two", icon: STROKE }] : []),
            ...(data.limits.length ? [{ name: "limit", icon: DASHES }] : []),
          ],
        },
        tooltip: {
          ...tip(colours),
          formatter: ({ data: point }, ticket, show) => (point?.trial ? this.tip(point, names[point.kind], ticket, show) : ""),
        },
        xAxis: this.axis(x, values.x, colours, "x"),
        yAxis: this.axis(y, values.y, colours, "y"),
        series,
      },
      { notMerge: true },
    );
    const front = points.front.length + points.recommended.length;
    const drawn = all.length < total ? `${all.length.toLocaleString("en")} of ${total.toLocaleString("en")} trials are drawn, the front and the rest evenly` : `${total.toLocaleString("en")} trial${total === 1 ? " has" : "s have"} both values`;
    const broken = points.infeasible.length;
    const even = points.tied.length;
    return `${drawn}; ${front} on the front${even ? `, ${even.toLocaleString("en")} tied with it within noise` : ""}${broken ? `, ${broken.toLocaleString("en")} not feasible` : ""}. A point opens its trial.`;
  }

  axis(name, values, colours, side) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const isLog = name !== "number" && this.page.isLog(name, low, high);
    const unit = this.page.unit(name, values);
    const margin = (high - low) * 0.03 || Math.abs(high) * 0.05 || 1;
    const bounds = isLog ? [low * 0.8, high * 1.25] : [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
    return {
      ...axis(colours),
      type: isLog ? "log" : "value",
      name: this.page.title(name, unit),
      nameLocation: "middle",
      nameGap: side === "x" ? 28 : 48,
      nameTextStyle: { color: colours.quiet },
      ...this.page.ticks([low, high], unit, isLog, 6, unit.size === 1 && values.every(Number.isInteger)),
      axisLabel: { ...axis(colours).axisLabel, hideOverlap: true, showMaxLabel: isLog ? false : null, formatter: (value) => tidy(value / unit.size) },
    };
  }

  table(data) {
    const rows = data.edge.map((point) => [this.page.value(this.x, point[this.x]), this.page.value(this.y, point[this.y])]);
    return { head: [this.page.label(this.x), this.page.label(this.y)], rows };
  }
}

class Importance extends Picture {
  load() {
    return this.page.get("importance", {});
  }

  nothing({ trials, fewest_trials: fewest }) {
    if (trials >= fewest) return "";
    return `${fewest} feasible complete trials are needed to say anything; there ${trials === 1 ? "is" : "are"} ${trials}.`;
  }

  /** Parameters, the one that matters most to any objective last: the axis begins below. */
  order(objectives) {
    const most = {};
    for (const found of Object.values(objectives)) {
      for (const [name, value] of Object.entries(found)) most[name] = Math.max(most[name] ?? 0, value);
    }
    return Object.keys(most).sort((a, b) => most[a] - most[b]);
  }

  /** Whether a parameter without any effect reaches such a bar by chance. */
  isNoise({ objectives, noise }, metric, parameter) {
    return (objectives[metric][parameter] ?? 0) <= (noise[metric]?.[parameter] ?? 0);
  }

  /** A share with its interval, as the tables have it. */
  words(data, metric, parameter) {
    if (data.constant.includes(metric)) return "does not vary";
    const range = data.intervals[metric]?.[parameter];
    const own = share(data.objectives[metric][parameter] ?? 0);
    return `${own}${range ? ` (${share(range[0])} to ${share(range[1])})` : ""}${this.isNoise(data, metric, parameter) ? ", within noise" : ""}`;
  }

  paint(data, colours) {
    const { objectives, trials, total, constant, resamples } = data;
    const parameters = this.order(objectives);
    const isNarrow = this.element.clientWidth < 620;
    const metrics = Object.keys(objectives);
    this.element.style.height = `${48 + parameters.length * (12 + 13 * metrics.length)}px`;
    this.chart().resize();
    this.chart().setOption(
      {
        ...base(colours),
        grid: { left: 8, right: 44, top: 34, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "all" },
        legend: { ...legend(colours), data: metrics.map((name) => this.page.label(name)) },
        tooltip: {
          ...tip(colours),
          trigger: "axis",
          axisPointer: { type: "shadow", shadowStyle: { color: colours.soft, opacity: 0.6 } },
          formatter: (rows) => card(rows[0].axisValue, [], [...rows].reverse().map((row) => [row.seriesName, this.words(data, metrics[row.seriesIndex], row.axisValue)])),
        },
        xAxis: { ...axis(colours), type: "value", min: 0, axisLabel: { ...axis(colours).axisLabel, hideOverlap: true, formatter: (value) => share(value) } },
        yAxis: {
          ...axis(colours),
          type: "category",
          data: parameters,
          splitLine: { show: false },
          axisLabel: { color: colours.ink, fontFamily: colours.mono, fontSize: isNarrow ? 10.5 : 11.5, ...(isNarrow && { width: 120, overflow: "break", lineHeight: 12 }) },
        },
        series: metrics.map((name, index) => ({
          type: "bar",
          name: this.page.label(name),
          data: parameters.map((parameter) => ({
            value: objectives[name][parameter] ?? 0,
            itemStyle: this.isNoise(data, name, parameter) ? { opacity: 0.3 } : {},
          })),
          itemStyle: { color: colours.series[index % colours.series.length], borderRadius: [0, 3, 3, 0] },
          barMaxWidth: 11,
          barGap: "20%",
        })),
      },
      { notMerge: true },
    );
    const over = trials < total ? `Over ${trials.toLocaleString("en")} of ${total.toLocaleString("en")} feasible trials, evenly taken.` : `Over ${trials.toLocaleString("en")} feasible trials.`;
    const still = constant.length ? ` ${constant.map((name) => this.page.label(name)).join(", ")}: does not vary.` : "";
    const fewest = Math.min(...Object.values(resamples).filter((count) => count > 0));
    const hasty = fewest < 10 ? ` Intervals and noise rest on ${fewest} resamples: there was no time for more.` : "";
    return `${over} Pale bars are within noise: a parameter without any effect reaches them once in twenty times.${still}${hasty}`;
  }

  table(data) {
    const { objectives } = data;
    const metrics = Object.keys(objectives);
    return {
      head: ["parameter", ...metrics.map((name) => this.page.label(name))],
      rows: this.order(objectives)
        .reverse()
        .map((parameter) => [parameter, ...metrics.map((name) => this.words(data, name, parameter))]),
    };
  }
}

class Effects extends Picture {
  async load() {
    this.metric = document.getElementById("effect-metric").value;
    const found = await Promise.all(
      this.page.facts.parameters.map((parameter) => this.page.get("effect", { parameter, metric: this.metric })),
    );
    return found.filter((effect) => effect.levels.length > 1);
  }

  nothing(effects) {
    if (!effects.length) return "No parameter has two values among the feasible trials yet.";
    if (!effects.every((effect) => effect.constant)) return "";
    const value = this.page.value(this.metric, effects[0].levels[0].median);
    return `${this.page.label(this.metric)} does not vary: it is ${value} in all feasible trials.`;
  }

  paint(effects, colours) {
    const figures = effects.map((effect) => this.figure(effect.parameter));
    this.keep(figures.map((figure) => figure.lastChild));
    this.element.replaceChildren(...figures);
    const scores = effects.flatMap((effect) => effect.levels.flatMap((level) => [level.quartile_1, level.quartile_3, level.best]));
    const range = [Math.min(...scores), Math.max(...scores)];
    for (const [index, effect] of effects.entries()) this.paintOne(figures[index].lastChild, effect, range, colours);
    return `${this.page.title(this.metric, this.page.unit(this.metric, range))} of the feasible trials: quartiles (box or whisker), median (line or dark dot) and best (bright dot). Every picture has the same scale.`;
  }

  figure(parameter) {
    const known = this.element.querySelector(`[data-parameter="${CSS.escape(parameter)}"]`);
    if (known) return known;
    const figure = document.createElement("div");
    figure.dataset.parameter = parameter;
    figure.append(Object.assign(document.createElement("h3"), { textContent: parameter }), document.createElement("div"));
    return figure;
  }

  /** Whether a parameter's levels stand along an axis of numbers, not side by side. */
  isContinuous({ levels, parameter }) {
    const areNumbers = levels.every((level) => typeof level.low === "number" && typeof level.high === "number");
    return areNumbers && (this.page.facts.names[parameter]?.log || levels.length > FEW_VALUES);
  }

  paintOne(element, effect, range, colours) {
    const draw = this.isContinuous(effect) ? this.paintNumbers : this.paintLevels;
    draw.call(this, element, effect, range, colours);
  }

  /** A line through the medians along the parameter's own axis, the quartiles as whiskers. */
  paintNumbers(element, { levels, parameter }, [low, high], colours) {
    const ends = [Math.min(...levels.map((level) => level.low)), Math.max(...levels.map((level) => level.high))];
    const isLog = this.page.isLog(parameter, ...ends);
    const at = (level) => (isLog ? Math.sqrt(level.low * level.high) : (level.low + level.high) / 2);
    const margin = (high - low) * 0.06 || 1;
    const unit = this.page.unit(this.metric, [low, high]);
    const whiskers = levels.flatMap((level) => [[at(level), level.quartile_1], [at(level), level.quartile_3], [at(level), null]]);
    const across = isLog ? { type: "log", min: ends[0] * 0.9, max: ends[1] * 1.1 } : { type: "value", scale: true };
    const points = (name) => levels.map((level) => ({ value: [at(level), level[name]], level }));
    this.chart(element).setOption(
      {
        ...base(colours),
        grid: { left: 4, right: 14, top: 12, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "all" },
        tooltip: { ...tip(colours), trigger: "item", formatter: ({ data }) => (data.level ? this.describe(parameter, data.level) : "") },
        xAxis: { ...axis(colours), ...across, splitLine: { show: false }, axisLabel: { ...axis(colours).axisLabel, hideOverlap: true, showMaxLabel: isLog ? false : null, formatter: tidy } },
        yAxis: { ...axis(colours), type: "value", ...this.page.ticks([low - margin, high + margin], unit, false, 3), axisLabel: { ...axis(colours).axisLabel, formatter: (value) => tidy(value / unit.size) } },
        series: [
          { type: "line", data: whiskers, symbol: "none", silent: true, lineStyle: { color: colours.running, width: 2, opacity: 0.6 }, z: 2 },
          { type: "line", data: points("median"), symbol: "circle", symbolSize: 6, lineStyle: { color: colours.ink, width: 2 * levels.filter((level) => level.trials > 1).length > levels.length ? 1.5 : 0 }, itemStyle: { color: colours.ink }, z: 3 },
          { type: "scatter", data: points("best"), symbolSize: 7, itemStyle: { color: colours.star, borderColor: colours.card, borderWidth: 1 }, z: 4 },
        ],
      },
      { notMerge: true },
    );
  }

  describe(parameter, level) {
    const show = (value) => this.page.value(this.metric, value);
    return card(`${parameter} ${this.level(level)}`, [`${level.trials} trial${level.trials === 1 ? "" : "s"}`], [
      ["best", show(level.best)],
      ["median", show(level.median)],
      ["quartiles", `${show(level.quartile_1)} to ${show(level.quartile_3)}`],
    ]);
  }

  paintLevels(element, { levels, parameter }, [low, high], colours) {
    const names = levels.map((level) => this.level(level));
    const margin = (high - low) * 0.06 || 1;
    const unit = this.page.unit(this.metric, [low, high]);
    this.chart(element).setOption(
      {
        ...base(colours),
        grid: { left: 4, right: 10, top: 12, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "all" },
        tooltip: {
          ...tip(colours),
          trigger: "axis",
          axisPointer: { type: "shadow", shadowStyle: { color: colours.soft, opacity: 0.6 } },
          formatter: ([{ dataIndex }]) => this.describe(parameter, levels[dataIndex]),
        },
        xAxis: { ...axis(colours), type: "category", data: names, splitLine: { show: false }, axisLabel: { ...axis(colours).axisLabel, ...everyLabel(names, element.clientWidth) } },
        yAxis: { ...axis(colours), type: "value", ...this.page.ticks([low - margin, high + margin], unit, false, 3), axisLabel: { ...axis(colours).axisLabel, formatter: (value) => tidy(value / unit.size) } },
        series: [
          {
            type: "candlestick",
            data: levels.map((level) => [level.quartile_1, level.quartile_3, level.quartile_1, level.quartile_3]),
            itemStyle: { color: colours.running, color0: colours.running, borderColor: colours.running, borderColor0: colours.running },
            barMaxWidth: 26,
          },
          { type: "scatter", data: levels.map((level) => level.median), symbol: "rect", symbolSize: [18, 2.5], itemStyle: { color: colours.ink }, silent: true, z: 4 },
          { type: "scatter", data: levels.map((level) => level.best), symbolSize: 7, itemStyle: { color: colours.star, borderColor: colours.card, borderWidth: 1 }, silent: true, z: 5 },
        ],
      },
      { notMerge: true },
    );
  }

  level({ low, high }) {
    const text = (value) => (typeof value === "number" ? number(value) : value);
    return low === high ? text(low) : `${text(low)} to ${text(high)}`;
  }

  table(effects) {
    const show = (value) => this.page.value(this.metric, value);
    return {
      head: ["parameter", "value", "trials", "best", "lower quartile", "median", "upper quartile"],
      rows: effects.flatMap(({ parameter, levels }) =>
        levels.map((level) => [parameter, this.level(level), level.trials, show(level.best), show(level.quartile_1), show(level.median), show(level.quartile_3)]),
      ),
    };
  }
}

class Hypervolume extends Picture {
  async load() {
    this.over = document.getElementById("hypervolume-over").value;
    const answer = await this.page.get("hypervolume", {});
    const begun = Date.parse(answer.steps[0]?.ended_at);
    return { ...answer, steps: answer.steps.map((step) => ({ ...step, seconds: (Date.parse(step.ended_at) - begun) / 1000 })) };
  }

  nothing({ steps, reason }) {
    if (reason) return `There is nothing to draw: ${reason}.`;
    return steps.length ? "" : "The first feasible trial with every objective begins it.";
  }

  paint({ steps, trials }, colours) {
    const across = (step) => (this.over === "time" ? step.seconds : step.trials);
    const data = steps.map((step) => ({ value: [across(step), step.share], step }));
    if (this.over !== "time") data.push({ value: [trials, steps.at(-1).share] });
    this.chart().setOption(
      {
        ...base(colours),
        grid: { left: 8, right: 24, top: 18, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "all" },
        tooltip: {
          ...tip(colours),
          trigger: "axis",
          axisPointer: { lineStyle: { color: colours.strong } },
          formatter: ([{ data: point }]) => {
            const { step } = point;
            return step && card(share(step.share), [`raised by trial ${step.number}`], [
              ["feasible trials", step.trials.toLocaleString("en")],
              ["after the first", duration(step.seconds)],
            ]);
          },
        },
        xAxis: {
          ...axis(colours),
          type: "value",
          min: this.over === "time" ? 0 : 1,
          minInterval: this.over === "time" ? undefined : 1,
          name: this.over === "time" ? "time since the first feasible trial" : "feasible trials",
          nameLocation: "middle",
          nameGap: 28,
          nameTextStyle: { color: colours.quiet },
          axisLabel: { ...axis(colours).axisLabel, hideOverlap: true, formatter: this.over === "time" ? duration : count },
        },
        yAxis: { ...axis(colours), type: "value", min: 0, axisLabel: { ...axis(colours).axisLabel, formatter: (value) => share(value) } },
        series: [
          {
            type: "line",
            data,
            step: "end",
            symbol: steps.length > 60 ? "none" : "circle",
            symbolSize: 6,
            lineStyle: { color: colours.front, width: 2 },
            itemStyle: { color: colours.front },
            areaStyle: { color: colours.front, opacity: 0.08 },
          },
        ],
      },
      { notMerge: true },
    );
    const last = steps.at(-1);
    return `${share(last.share)} after ${trials.toLocaleString("en")} feasible trials; trial ${last.number} raised it last.`;
  }

  table({ steps }) {
    return {
      head: ["feasible trials", "raised by trial", "share", "after the first"],
      rows: steps.map((step) => [step.trials, step.number, share(step.share), duration(step.seconds)]),
    };
  }
}

class Parallel extends Picture {
  async load() {
    this.names = [...document.querySelectorAll("[data-inverted=hide] input:checked")].map((box) => box.value);
    if (this.names.length < 2) return { names: this.names, trial: [], values: {} };
    const query = this.names.map((name) => ["name", name]);
    return this.page.get("columns", [...query, ["limit", "1000"]]);
  }

  nothing({ trial }) {
    if (this.names.length < 2) return "Two axes are needed: switch some on.";
    return trial.length ? "" : "The first trial will appear here when it has ended.";
  }

  paint(data, colours) {
    const { page, names } = this;
    const recommended = document.getElementById("sweep-results")?.dataset.recommended;
    const isNarrow = this.element.clientWidth < 620;
    this.element.style.height = isNarrow ? `${70 + 62 * names.length}px` : "";
    this.chart().resize();
    const axes = names.map((name) => ({ name, ...this.scale(name, data.values[name], colours) }));
    const groups = { rest: [], front: [], recommended: [] };
    for (const [index, trial] of data.trial.entries()) {
      const kind = trial === recommended ? "recommended" : data.rank[index] === 1 ? "front" : "rest";
      groups[kind].push(axes.map(({ name, at }) => at(data.values[name][index])));
    }
    const styles = {
      rest: { color: colours.mark, opacity: data.trial.length > 200 ? 0.16 : 0.3, width: 1 },
      front: { color: colours.front, opacity: 0.75, width: 1.6 },
      recommended: { color: colours.star, opacity: 1, width: 2.6 },
    };
    this.chart().setOption(
      {
        ...base(colours),
        legend: { ...legend(colours), data: ["recommended", "front", "others"] },
        parallel: isNarrow
          ? { left: 18, right: 34, top: 58, bottom: 34, layout: "vertical" }
          : { left: 36, right: 84, top: 84, bottom: 16, layout: "horizontal" },
        parallelAxis: axes.map(({ name, scale }, dim) => ({
          dim,
          name: isNarrow ? page.label(name) : within(page.label(name), 22),
          nameRotate: isNarrow ? 0 : 20,
          nameLocation: isNarrow === Boolean(scale.inverse) ? "end" : isNarrow ? "start" : scale.inverse ? "start" : "end",
          nameGap: isNarrow ? 0 : 12,
          nameTextStyle: { color: colours.ink, fontSize: 11, lineHeight: 13, align: "left", ...(isNarrow && { verticalAlign: "bottom", padding: [0, 0, 9, 0] }) },
          ...scale,
          axisLine: { lineStyle: { color: colours.strong } },
          axisTick: { lineStyle: { color: colours.strong } },
          areaSelectStyle: { width: 16, borderColor: colours.front, color: colours.front, opacity: 0.2 },
          tooltip: { show: false },
        })),
        series: Object.entries(groups).map(([kind, lines]) => ({
          type: "parallel",
          name: { rest: "others" }[kind] ?? kind,
          data: lines,
          lineStyle: styles[kind],
          itemStyle: { color: styles[kind].color },
          inactiveOpacity: 0.03,
          activeOpacity: Math.max(styles[kind].opacity, 0.6),
          smooth: 0.08,
          silent: true,
          z: { rest: 2, front: 3, recommended: 4 }[kind],
        })),
      },
      { notMerge: true },
    );
    const drawn = data.trial.length < data.total ? `${data.trial.length.toLocaleString("en")} of ${data.total.toLocaleString("en")} trials, the front and the rest evenly. ` : "";
    return `${drawn}Drag along an axis to keep the trials in that range; click the axis to let go.`;
  }

  /** The axis of a metric or parameter, and what of it a value is `at`: words and few numbers stand at even distances. */
  scale(name, values, colours) {
    const label = { color: colours.quiet, fontSize: 10.5, lineHeight: 12 };
    const given = [...new Set(values.filter((value) => value !== null))];
    const areNumbers = given.every((value) => typeof value === "number");
    const areChoices = given.length <= FEW_VALUES && !this.page.goal(name) && given.every(Number.isInteger);
    if (areNumbers && given.length < 2 && !areChoices) {
      // A scale around one value would be invented: below 0, for most metrics.
      const text = this.page.value(name, given[0]);
      return { scale: { type: "category", data: [text], axisLabel: label }, at: (value) => (value === null ? null : text) };
    }
    if (!areNumbers || areChoices) {
      const sorted = areNumbers ? given.sort((a, b) => a - b) : given.map(String).sort();
      const scale = { type: "category", data: sorted.map(String), axisLabel: { ...label, formatter: (text) => within(text, TICK_CHARACTERS) } };
      return { scale, at: (value) => (value === null ? null : String(value)) };
    }
    const [low, high] = [Math.min(...given), Math.max(...given)];
    const isLog = this.page.isLog(name, low, high);
    const unit = this.page.unit(name, given);
    const scale = {
      type: isLog ? "log" : "value",
      ...this.page.ticks([low, high], unit, isLog, 6, unit.size === 1 && given.every(Number.isInteger)),
      inverse: this.page.goal(name) === "minimize",
      axisLabel: { ...label, hideOverlap: true, formatter: (value) => `${tidy(value / unit.size)}${unit.size === 1 ? "" : ` ${unit.text}`}` },
    };
    return { scale, at: (value) => value };
  }

  table() {
    return null;
  }
}

const KINDS = { tradeoff: Tradeoff, importance: Importance, effects: Effects, hypervolume: Hypervolume, parallel: Parallel };

// --- how it looks -----------------------------------------------------------------------------------------------------

const STROKE = "path://M0 4h12v2h-12z";
const DASHES = "path://M0 4h5v2h-5zM7 4h5v2h-5z";
const STAR = "path://M0-11 3.2-4.2 10.6-3.4 5.1 1.7 6.6 9 0 5.3-6.6 9-5.1 1.7-10.6-3.4-3.2-4.2z";

/** The colours and fonts of the stylesheet, as they are now. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: of("ink"),
    quiet: of("quiet"),
    line: of("line"),
    strong: of("line-strong"),
    card: of("card"),
    soft: of("accent-soft"),
    front: of("front"),
    star: of("star"),
    mark: of("mark"),
    bad: of("bad"),
    running: of("running"),
    mono: of("mono"),
    series: [of("running"), of("infeasible"), of("complete"), of("pruned"), of("failed")],
    font: getComputedStyle(document.body).fontFamily,
  };
}

const base = (colours) => ({
  animation: !reduced.matches,
  animationDuration: 250,
  animationDurationUpdate: 250,
  textStyle: { color: colours.ink, fontFamily: colours.font },
});

const axis = (colours) => ({
  axisLine: { show: true, lineStyle: { color: colours.strong } },
  axisTick: { show: false },
  axisLabel: { color: colours.quiet, fontSize: 11.5 },
  splitLine: { lineStyle: { color: colours.line } },
});

const legend = (colours) => ({
  type: "scroll",
  top: 0,
  left: 0,
  itemWidth: 12,
  itemHeight: 10,
  itemGap: 16,
  textStyle: { color: colours.quiet, fontSize: 12 },
  pageTextStyle: { color: colours.quiet },
  pageIconColor: colours.front,
  pageIconInactiveColor: colours.line,
});

const tip = (colours) => ({
  backgroundColor: colours.card,
  borderColor: colours.strong,
  borderWidth: 1,
  padding: [8, 12],
  confine: true,
  transitionDuration: 0.1,
  textStyle: { color: colours.ink, fontSize: 12.5 },
});

/** What a tooltip holds, as elements: text stays text. */
function card(title, remarks, rows) {
  const made = document.createElement("div");
  made.className = "tip";
  made.append(Object.assign(document.createElement("strong"), { textContent: title }));
  for (const remark of remarks) made.append(Object.assign(document.createElement("p"), { textContent: remark }));
  const list = document.createElement("dl");
  for (const [name, value] of rows) {
    list.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
  }
  made.append(list);
  return made;
}

function cells(kind, texts, scope) {
  const row = document.createElement("tr");
  for (const text of texts) {
    const cell = Object.assign(document.createElement(kind), { textContent: String(text) });
    if (scope) cell.scope = scope;
    row.append(cell);
  }
  return row;
}

// --- numbers as people read them: as layersweep/display/units.py writes them ------------------------------------------

export function number(given) {
  if (given === 0) return "0";
  const size = Math.abs(given);
  if (Number.isInteger(given) && size < 1e9) return String(given);
  if (size < 1e-4 || size >= 1e6) return given.toExponential(3).split("e").map(Number).join("e");
  const rounded = Number(size.toExponential(3));
  const text = given.toFixed(Math.max(0, 3 - Math.floor(Math.log10(rounded))));
  return text.includes(".") && text.endsWith("00") ? withoutZeros(text) : text;
}

/** A mark of an axis: without what floating-point numbers add to it. */
function tidy(given) {
  const text = number(Number(given.toPrecision(10)));
  return text.includes(".") && !text.includes("e") ? withoutZeros(text) : text;
}

export const count = (given) => scaled(given, COUNTS);

export function bytes(given) {
  return Math.abs(given) < 1023.5 ? `${Math.round(given)} B` : scaled(given, BYTES);
}

export function duration(seconds) {
  if (seconds < 0.001) return seconds <= 0 ? "0 s" : "< 1 ms";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const place = TIMES.findLastIndex(([size]) => whole >= size);
  const [[below, belowName], [size, name]] = [TIMES[place - 1], TIMES[place]];
  const second = Math.floor((whole % size) / below);
  return `${Math.floor(whole / size)} ${name}${second ? ` ${second} ${belowName}` : ""}`;
}

export function share(given, decimals = given > 0 && given < 0.1 ? 1 : 0) {
  const rest = Math.min(given, 1 - given);
  const needed = rest > 0 && rest < 0.01 ? Math.min(6, Math.ceil(-Math.log10(100 * rest))) : 0;
  return `${(100 * given).toFixed(Math.max(decimals, needed))}%`;
}

function scaled(given, steps) {
  for (const [place, [size, name]] of steps.slice(0, -1).entries()) {
    const text = threeDigits(given / size);
    if (Math.abs(Number(text)) * size < steps[place + 1][0]) return `${text} ${name}`.trimEnd();
  }
  const [size, name] = steps.at(-1);
  return `${threeDigits(given / size)} ${name}`;
}

function threeDigits(given) {
  return Math.abs(given) < 999.5 ? String(Number(given.toPrecision(3))) : given.toFixed(0);
}

const withoutZeros = (text) => text.replace(/\.?0+$/, "");

/** How each of an axis's labels is written so that none is cut or left out: in lines, or upright where there is no room for these. */
export function everyLabel(names, width) {
  const most = Math.floor((width - SIDE_PIXELS) / names.length / CHARACTER_PIXELS);
  const wrapped = names.map((name) => lines(name, most));
  if (wrapped.flat().every((line) => line.length <= most)) return { interval: 0, lineHeight: 13, formatter: (text, index) => wrapped[index].join("\n") };
  return { interval: 0, rotate: 90, fontSize: 10.5 };
}

/** A name in lines of so many characters at most, as far as it has places to break at. */
function lines(name, most) {
  const found = [""];
  for (const piece of name.split(/(?<=[_ .])/)) {
    if (found.at(-1) && (found.at(-1) + piece).trimEnd().length > most) found.push(piece);
    else found.push(found.pop() + piece);
  }
  return found.map((line) => line.trimEnd());
}

/** A name in lines, of which only a word that is longer than a line is cut. */
function within(name, most) {
  return lines(name, most).map((line) => (line.length > most ? `${line.slice(0, most - 1)}…` : line)).join("\n");
}
