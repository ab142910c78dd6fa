/** All channels of a layer on one canvas, or on two: of two images. */

import * as data from "./data.js";
import {
  announce, button, byId, counted, div, field, make, number, optionField, percent, say,
  saveButton, select, settled, shapeText, soft, span, terms, toast,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { Grid } from "./levels.js";
import { parseLimits, writeLimits } from "./model.js";
import { saveCanvas, sideBySide } from "./save.js";
import { Stage } from "./stage.js";
import { get, go } from "./state.js";

const HELP = "Arrow keys choose one, Enter opens it, "
  + "plus and minus magnify, 0 shows all.";
const STATISTICS = { mean: "mean", std: "std", max: "max", zeros: "zero_fraction" };

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
    this.canvas = make("canvas", {
      class: "grid", role: "application", "aria-roledescription": "grid of channels",
      "aria-label": HELP,
    });
    this.tip = make("div", { class: "tip", hidden: true });
    this.note = make("div", { class: "note", hidden: true });
    this.caption = make("p", { class: "caption", hidden: true });
    this.element = div(`side ${name}`, this.caption, this.canvas, this.note, this.tip);
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
        const shown = [path, image, state.normalize, state.scope].join("|");
        this.loaded = { about, levels, layer, image, shown };
      } finally {
        clearTimeout(slow);
        if (!signal.aborted) this.element.classList.remove("loading");
      }
      this.composed = null;
      this.view.show(get());
      this.view.tell();
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
    const { about: { tiles }, levels, layer, image } = this.loaded;
    // Two images show the same channels at the same places: those of the first.
    const first = this.view.sides[0].loaded;
    const leader = first?.layer === layer ? first : this.loaded;
    const key = [state.order, state.show, state.columns, state.cmap, leader.image].join("|");
    if (this.composed !== key) {
      this.composed = key;
      const channels = channelsOf(leader.about, tiles.count / tiles.slices, state);
      const { path } = this.view.model.nodes[layer];
      const of = `${path} for ${this.view.images.nameOf(image)}`;
      this.canvas.ariaLabel = `Channels of ${of}. ${HELP}`;
      const grid = new Grid(tiles, channels, state.columns);
      say(this.note, grid.count ? null : `No ${state.show} channels in this layer for this image.`);
      const lut = this.view.model.lut(state.cmap);
      this.stage.show(grid.count ? grid.paint(levels, lut) : null, grid);
    }
    this.stage.setView(state.view);
  }

  fail(error) {
    this.element.classList.remove("loading");
    this.clear();
    say(this.note, error.message, true);
    announce(error.message);
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
    this.tip.replaceChildren(make("b", {}, title + slice), terms(lines));
    if (stats.dead.includes(channel)) this.tip.append(span("dead", "dead"));
    this.place(point);
    if (byKey) announce(`${title}${slice}: ${lines.map((line) => line.join(" ")).join(", ")}`);
  }

  /** Put the tip beside a point, where there is room for it. */
  place(point) {
    const beside = (at, size, room) => {
      const wanted = at + 14 + size > room ? at - size - 14 : at + 14;
      return Math.max(4, Math.min(wanted, room - size - 4));
    };
    const { clientWidth, clientHeight, offsetTop } = this.canvas;
    const { offsetWidth, offsetHeight } = this.tip;
    this.tip.style.left = `${beside(point.x, offsetWidth, clientWidth)}px`;
    this.tip.style.top = `${offsetTop + beside(point.y, offsetHeight, clientHeight)}px`;
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
    this.about = soft();
    this.comparing = button("Compare", {
      "aria-pressed": "false", title: "Another image beside this one",
      onclick: () => this.turnComparison(),
    });
    const heading = make("header", { class: "heading" }, div(null, this.title, this.about),
      this.comparing, saveButton("this view", () => this.save()));
    this.stages = div("stages", ...this.sides.map(({ element }) => element));
    byId("layer").append(heading, this.buildOptions(), this.stages);
  }

  buildOptions() {
    const controls = this.model.controls.layer;
    const named = (names) => names.map((name) => [name, name]);
    const choice = (name) => select(named(controls[name].words), (word) => go({ [name]: word }));
    for (const name of ["scope", "order", "cmap"]) this[name] = choice(name);
    this.only = select(named(["all", "live", "dead"]), (show) => go({ show }));
    const lay = settled(250, () => {
      const count = parseInt(this.columns.value, 10);
      go({ columns: count > 0 ? count : null, view: null }, { step: false });
    });
    this.columns = make("input", { type: "number", min: 1, placeholder: "auto", oninput: lay });
    return div("options", optionField("Normalise", controls.normalize, this.buildNormalization()),
      optionField("Scaled by", controls.scope, this.scope),
      optionField("Order by", controls.order, this.order),
      optionField("Colours", controls.cmap, this.cmap), field("Show", this.only),
      optionField("Columns", controls.columns, this.columns, { class: "field narrow" }),
      this.buildZoom());
  }

  /** Names of normalisations; where the server is live, with numbers of one's own. */
  buildNormalization() {
    const { live, controls } = this.model;
    const { words, limited } = controls.layer.normalize;
    const names = live ? [...words.filter((name) => !parseLimits(name)), ...limited] : words;
    this.normalize = select(names.map((name) => [name, name]),
      (name) => this.chooseNormalization(name));
    const limit = (name) => make("input", {
      type: "number", step: "any", "aria-label": name, onchange: () => this.limit(),
    });
    [this.low, this.high] = [limit("from"), limit("to")];
    this.limits = make("span", { class: "limits", hidden: true }, this.low, " to ", this.high);
    return span("joined", this.normalize, this.limits);
  }

  buildZoom() {
    const zoom = (text, label, factor) => button(text, {
      "aria-label": label, title: `${label} (${text})`,
      onclick: () => this.sides[0].stage.zoom(factor),
    });
    this.scale = button("fit", {
      class: "scale", title: "Show all (0)", onclick: () => this.moved(null),
    });
    return make("div", { class: "zoom", role: "group", "aria-label": "Magnification" },
      zoom("−", "Smaller", 1 / 1.5), this.scale, zoom("+", "Larger", 1.5));
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
      say(first.note, NO_IMAGES);
      return;
    }
    first.load(state, state.image, layer);
    second.element.hidden = state.compare === null;
    first.caption.hidden = second.caption.hidden = state.compare === null;
    if (state.compare !== null) {
      second.load(state, state.compare, layer);
      first.caption.replaceChildren(this.images.nameOf(state.image));
      second.caption.replaceChildren(this.images.nameOf(state.compare),
        button("×", {
          class: "quiet",
          "aria-label": "Stop comparing",
          onclick: () => go({ compare: null }),
        }));
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
    this.comparing.ariaPressed = String(state.compare !== null);
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

  /** Say which layer is shown now. */
  tell() {
    announce(`${this.title.textContent}: ${this.about.textContent}`);
  }

  channelTitle(channel) {
    const state = get();
    const layer = this.model.layer(state);
    // One value for two classes is that of the second.
    const { classes } = this.model;
    const index = channel + (classes?.count ?? 0) - this.model.nodes[layer].channels;
    const label = classes?.node === layer ? this.model.label(index) : null;
    const word = this.model.nodes[layer].kind === "dense" ? "Unit" : "Channel";
    return `${word} ${channel}${label ? `: ${label}` : ""}`;
  }

  moved(view) {
    for (const { stage } of this.sides) stage.setView(view);
    go({ view }, { step: false });
  }

  showScale(state) {
    const { stage } = this.sides[0];
    const fitted = !(state.view && stage.grid);
    this.scale.textContent = fitted ? "fit" : percent(state.view.scale);
  }

  chooseNormalization(name) {
    const stats = this.sides[0].loaded?.about.stats;
    const extreme = (values = [], choose, start) => // of units there may be too many to spread
      values.reduce((found, value) => (value === null ? found : choose(found, value)), start);
    const least = extreme(stats?.min, Math.min, Infinity);
    const most = extreme(stats?.max, Math.max, -Infinity);
    const limits = least < most ? [least, most].map((value) => +value.toPrecision(3)) : [0, 1];
    const { words, limited } = this.model.controls.layer.normalize;
    const usual = words.find((word) => parseLimits(word)?.name === name);
    go({ normalize: usual ?? (limited.includes(name) ? writeLimits(name, ...limits) : name) });
  }

  limit() {
    const text = writeLimits(this.normalize.value, this.low.value, this.high.value);
    const fine = this.model.normalizes(text);
    for (const input of [this.low, this.high]) input.ariaInvalid = String(!fine);
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
    saveCanvas(
      sideBySide(pictures, this.model.lut(state.cmap)[0]),
      `${this.title.textContent.replaceAll("/", "-")}.png`,
    );
  }
}
