/** All channels of a layer on one canvas, or on two: of two images. */

import * as data from "./data.js";
import { announce, button, byId, choices, counted, field, make, number, percent, settled, shapeText, toast } from "./dom.js";
import { Grid } from "./levels.js";
import { parseLimits } from "./model.js";
import { saveCanvas, sideBySide } from "./save.js";
import { Stage } from "./stage.js";
import { get, go } from "./state.js";

const NORMALIZATIONS = {
  standard: "standard", minmax: "min to max", symmetric: "symmetric", percentile: "percentiles", range: "range",
};
const ORDERS = { index: "number", mean: "mean", std: "std", max: "max", zeros: "zeros" };
const STATISTICS = { mean: "mean", std: "std", max: "max", zeros: "zero_fraction" };

export const nameOfNormalization = (text) => {
  const limits = parseLimits(text);
  const name = limits ? `${NORMALIZATIONS[limits.name]} ${limits.low} to ${limits.high}` : NORMALIZATIONS[text];
  return name ?? text;
};

/** Channels in the order and of the kind that are wanted; as actgrid.render orders them. */
export function channelsOf(about, count, { order, show }) {
  const dead = new Set(about.stats.dead);
  const channels = Array.from({ length: count }, (_, channel) => channel)
    .filter((channel) => show === "all" || dead.has(channel) === (show === "dead"));
  const values = about.stats[STATISTICS[order]];
  if (!values) return channels;
  const key = (channel) => values[channel] ?? -Infinity; // those without a statistic come last
  return channels.sort((a, b) => (key(a) === key(b) ? a - b : key(b) - key(a)));
}

/** The layer and its levels for an image, as soon as both have come. */
export async function fetchLayer(image, layer, { normalize, scope }, signal) {
  const [about, levels] = await Promise.all([
    data.json(data.paths.layer(image, layer), signal),
    data.levels(data.paths.levels(image, layer, normalize, scope), signal),
  ]);
  return { about, levels };
}

/** One image's canvas in the layer view. */
class Side {
  constructor(view, name) {
    this.view = view;
    this.canvas = make("canvas", { class: "grid", role: "application", "aria-roledescription": "grid of channels",
      "aria-label": "Channels. Arrow keys choose one, Enter opens it, plus and minus magnify, 0 shows all." });
    this.tip = make("div", { class: "tip", hidden: true });
    this.note = make("div", { class: "note", hidden: true });
    this.caption = make("p", { class: "caption", hidden: true });
    this.element = make("div", { class: `side ${name}` }, this.caption, this.canvas, this.note, this.tip);
    this.stage = new Stage(this.canvas, {
      view: (place) => view.moved(place),
      hover: (cell, point, byKey) => this.tell(cell, point, byKey),
      pick: (cell) => go({ channel: this.stage.grid.channel(cell) }),
      drawn: () => this.markShown(),
    });
    this.task = new data.Task((error) => this.fail(error));
    this.loaded = null;
  }

  load(state, image, layer) {
    const key = [image, layer, state.normalize, state.scope].join("|");
    this.task.run(key, async (signal) => {
      if (this.loaded?.layer !== layer) this.clear();
      const slow = setTimeout(() => this.element.classList.add("loading"), 120);
      signal.addEventListener("abort", () => clearTimeout(slow));
      try {
        const { about, levels } = await fetchLayer(image, layer, state, signal);
        const path = this.view.model.nodes[layer].path;
        this.loaded = { about, levels, layer, image, shown: [path, image, state.normalize, state.scope].join("|") };
      } finally {
        clearTimeout(slow);
        if (!signal.aborted) this.element.classList.remove("loading");
      }
      this.composed = null;
      this.view.show(get());
    });
  }

  clear() {
    this.loaded = this.composed = null;
    delete this.canvas.dataset.shown;
    this.note.hidden = true;
    this.stage.show(null, null);
  }

  /** Make the picture anew if what it is made of has changed. */
  compose(state) {
    if (!this.loaded) return;
    const { about, levels } = this.loaded;
    const key = [state.order, state.show, state.columns, state.cmap].join("|");
    if (this.composed !== key) {
      this.composed = key;
      const { tiles } = about;
      const channels = channelsOf(about, tiles.count / tiles.slices, state);
      const grid = new Grid(tiles, channels, state.columns);
      this.say(grid.count ? null : `No ${state.show} channels in this layer for this image.`);
      this.stage.show(grid.count ? grid.paint(levels, this.view.model.lut(state.cmap)) : null, grid);
    }
    this.stage.setView(state.view);
  }

  say(text, retry = false) {
    this.note.hidden = !text;
    this.note.replaceChildren(text ?? "");
    if (retry) this.note.append(" ", button("Try again", { onclick: () => document.dispatchEvent(new Event("again")) }));
  }

  fail(error) {
    this.element.classList.remove("loading");
    this.clear();
    this.say(error.message, true);
    data.lost(error);
  }

  markShown() {
    if (!this.loaded || this.canvas.dataset.shown === this.loaded.shown) return;
    this.canvas.dataset.shown = this.loaded.shown;
    performance.mark("shown", { detail: this.loaded.shown });
  }

  /** Tell number and statistics of a channel beside the pointer, or beside the cursor. */
  tell(cell, point, byKey = false) {
    this.tip.hidden = cell === null || !this.loaded;
    if (this.tip.hidden) return;
    const channel = this.stage.grid.channel(cell);
    const { stats, tiles } = this.loaded.about;
    const title = this.view.channelTitle(channel);
    const slice = tiles.slices > 1 ? `, slice ${cell % tiles.slices}` : "";
    const lines = statisticsOf(stats, channel);
    this.tip.replaceChildren(make("b", {}, title + slice),
      make("dl", {}, ...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    if (stats.dead.includes(channel)) this.tip.append(make("span", { class: "dead" }, "dead"));
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [wide, high] = [this.tip.offsetWidth, this.tip.offsetHeight];
    const top = this.canvas.offsetTop;
    const beside = (at, size, room) => Math.max(4, at + 14 + size > room ? at - size - 14 : at + 14);
    this.tip.style.left = `${Math.min(beside(point.x, wide, width), Math.max(4, width - wide - 4))}px`;
    this.tip.style.top = `${top + Math.min(beside(point.y, high, height), Math.max(4, height - high - 4))}px`;
    if (byKey) announce(`${title}${slice}: ${lines.map((line) => line.join(" ")).join(", ")}`);
  }
}

/** What is measured of a channel, as [name, value]. */
export function statisticsOf(stats, channel) {
  const lines = ["mean", "std", "min", "max"].map((name) => [name, number(stats[name][channel])]);
  lines.push(["zeros", percent(stats.zero_fraction[channel])]);
  if (stats.nonfinite[channel]) lines.push(["not finite", String(stats.nonfinite[channel])]);
  return lines;
}

export class LayerView {
  constructor(model, images) {
    Object.assign(this, { model, images });
    this.sides = [new Side(this, "first"), new Side(this, "second")];
    this.build();
  }

  build() {
    this.title = make("h2", {});
    this.about = make("p", { class: "soft" });
    this.comparing = button("Compare", { "aria-pressed": "false", title: "Another image beside this one",
      onclick: () => this.turnComparison() });
    const save = button("Save", { title: "Save this view as PNG", "aria-label": "Save this view as PNG", onclick: () => this.save() });
    const zoom = make("div", { class: "zoom", role: "group", "aria-label": "Magnification" },
      button("−", { "aria-label": "Smaller", title: "Smaller (−)", onclick: () => this.sides[0].stage.zoom(1 / 1.5) }),
      this.scale = button("fit", { class: "scale", title: "Show all (0)", onclick: () => this.moved(null) }),
      button("+", { "aria-label": "Larger", title: "Larger (+)", onclick: () => this.sides[0].stage.zoom(1.5) }));
    this.stages = make("div", { class: "stages" }, ...this.sides.map(({ element }) => element));
    byId("layer").append(
      make("header", { class: "heading" }, make("div", {}, this.title, this.about), this.comparing, save),
      this.buildOptions(zoom), this.stages);
  }

  buildOptions(zoom) {
    const select = (name, pairs) => {
      const control = make("select", { onchange: () => go({ [name]: control.value }) });
      choices(control, pairs);
      return control;
    };
    const { model } = this;
    const names = model.normalizations.map((name) => [name, nameOfNormalization(name)])
      .filter(([name]) => !model.live || !name.includes(":"));
    if (model.live) names.push(["percentile", NORMALIZATIONS.percentile], ["range", NORMALIZATIONS.range]);
    this.normalize = make("select", { onchange: () => this.chooseNormalization() });
    choices(this.normalize, names);
    const limit = (name) => make("input", { type: "number", step: "any", "aria-label": name, onchange: () => this.limit() });
    [this.low, this.high] = [limit("from"), limit("to")];
    this.limits = make("span", { class: "limits", hidden: true }, this.low, " to ", this.high);
    this.scope = select("scope", model.scopes.map((name) => [name, name]));
    this.order = select("order", model.orders.map((name) => [name, ORDERS[name] ?? name]));
    this.cmap = select("cmap", Object.keys(model.colormaps).map((name) => [name, name]));
    this.only = select("show", [["all", "all"], ["live", "live"], ["dead", "dead"]]);
    this.columns = make("input", { type: "number", min: 1, placeholder: "auto",
      oninput: settled(250, () => go({ columns: parseInt(this.columns.value, 10) > 0 ? parseInt(this.columns.value, 10) : null, view: null }, { replace: true })) });
    return make("div", { class: "options" },
      field("Normalise", make("span", { class: "joined" }, this.normalize, this.limits)), field("Scaled by", this.scope),
      field("Order by", this.order), field("Colours", this.cmap), field("Show", this.only),
      field("Columns", this.columns, { class: "field narrow" }), zoom);
  }

  show(state) {
    const hidden = state.tab !== "layer" || state.channel !== null;
    byId("layer").hidden = hidden;
    if (hidden) return;
    const layer = this.model.layer(state);
    this.showOptions(state);
    const [first, second] = this.sides;
    if (!state.image) {
      first.clear();
      first.say("There are no images yet: add one, drop one here, or paste one.");
      return;
    }
    first.load(state, state.image, layer);
    second.element.hidden = state.compare === null;
    first.caption.hidden = second.caption.hidden = state.compare === null;
    if (state.compare !== null) {
      second.load(state, state.compare, layer);
      first.caption.replaceChildren(this.images.nameOf(state.image));
      second.caption.replaceChildren(this.images.nameOf(state.compare),
        button("×", { class: "quiet", "aria-label": "Stop comparing", onclick: () => go({ compare: null }) }));
    } else {
      second.task.stop();
    }
    for (const side of this.sides) if (!side.element.hidden) side.compose(state);
    this.showHeading(layer);
    this.showScale(state);
  }

  showOptions(state) {
    const limits = parseLimits(state.normalize);
    this.normalize.value = this.model.live && limits ? limits.name : state.normalize;
    this.limits.hidden = !(limits && this.model.live);
    if (limits && document.activeElement !== this.low && document.activeElement !== this.high) {
      [this.low.value, this.high.value] = [limits.low, limits.high];
    }
    for (const name of ["scope", "order", "cmap"]) this[name].value = state[name];
    this.only.value = state.show;
    if (document.activeElement !== this.columns) this.columns.value = state.columns ?? "";
    this.comparing.setAttribute("aria-pressed", String(state.compare !== null));
  }

  showHeading(layer) {
    const node = this.model.nodes[layer];
    this.title.textContent = node.path;
    const about = this.sides[0].loaded?.about;
    const parts = [node.type, shapeText(about ? [null, ...about.shape] : node.shape)];
    if (node.parameters) parts.push(counted(node.parameters, "parameter"));
    if (about?.stats.dead.length) parts.push(`${about.stats.dead.length} of ${node.channels} dead`);
    if (about?.tiles.step > 1) parts.push(`every ${about.tiles.step}th pixel shown`);
    this.about.textContent = parts.join(" · ");
  }

  channelTitle(channel) {
    const state = get();
    const layer = this.model.layer(state);
    const label = this.model.classes?.node === layer ? this.model.label(channel) : null;
    const word = this.model.nodes[layer].kind === "dense" ? "Unit" : "Channel";
    return `${word} ${channel}${label ? `: ${label}` : ""}`;
  }

  moved(view) {
    for (const { stage } of this.sides) stage.setView(view);
    go({ view }, { replace: true });
  }

  showScale(state) {
    const { stage } = this.sides[0];
    this.scale.textContent = state.view && stage.grid ? `${Math.round(state.view.scale * 100)}%` : "fit";
  }

  chooseNormalization() {
    const name = this.normalize.value;
    const stats = this.sides[0].loaded?.about.stats;
    const least = Math.min(...(stats?.min ?? []).filter((value) => value !== null));
    const most = Math.max(...(stats?.max ?? []).filter((value) => value !== null));
    const range = least < most ? `range:${+least.toPrecision(3)},${+most.toPrecision(3)}` : "range:0,1";
    go({ normalize: { percentile: "percentile:1,99", range }[name] ?? name });
  }

  limit() {
    const text = `${this.normalize.value}:${this.low.value},${this.high.value}`;
    const fine = this.model.normalizes(text);
    for (const input of [this.low, this.high]) input.setAttribute("aria-invalid", String(!fine));
    if (fine) go({ normalize: text });
  }

  turnComparison() {
    const { compare, image } = get();
    const other = compare === null ? this.images.another(image) : null;
    if (compare === other) toast("There is no other image to compare with.");
    go({ compare: other });
  }

  focus() {
    this.sides[0].canvas.focus({ preventScroll: true });
  }

  /** Where a channel's first tile is, in pixels of the window; null if it is not drawn. */
  tileRect(channel) {
    const { stage, canvas } = this.sides[0];
    const cell = stage.grid?.first(channel);
    if (cell === undefined || !stage.picture) return null;
    const { left, top } = canvas.getBoundingClientRect();
    const at = stage.toScreen(stage.grid.cell(cell));
    return { ...at, x: at.x + left, y: at.y + top };
  }

  save() {
    const state = get();
    const pictures = this.sides.filter(({ element, stage }) => !element.hidden && stage.picture)
      .map(({ stage }) => stage.picture);
    if (!pictures.length) return;
    // The gaps have the colour of level 0, as in the pictures that actgrid.render makes.
    saveCanvas(sideBySide(pictures, this.model.lut(state.cmap)[0]), `${this.title.textContent.replaceAll("/", "-")}.png`);
  }
}
