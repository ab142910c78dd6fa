/** The layer view: all channels of a layer for one image, or for two images side by side. */

import * as data from "./data.js";
import {
  announce, button, byId, debounce, definitionList, div, field, formatCount, formatNumber,
  formatPercent, formatShape, make, makePairs, mutedLine, optionField, saveButton, select,
  showNote, showToast, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { Grid } from "./levels.js";
import { formatLimits, parseLimits } from "./model.js";
import { joinPictures, saveCanvas } from "./save.js";
import { Stage } from "./stage.js";
import { getState, updateState } from "./state.js";

/** @import { Images } from "./images.js" */
/** @import { Levels, Point } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State, Viewport } from "./state.js" */

/** @typedef {Api.Layer & {relevance?: Api.Relevance["relevance"]}} AboutLayer */
/** @typedef {{about: AboutLayer, levels: Levels, layer: number, image: string}} LoadedLayer */

const HELP = "Arrow keys select a channel, Enter opens the channel, "
  + "plus and minus zoom, 0 fits all channels to the view.";
/** @type {Record<string, "mean" | "std" | "max" | "zero_fraction" | undefined>} */
const STATISTICS = { mean: "mean", std: "std", max: "max", zeros: "zero_fraction" };

/**
 * Return the channels to show (all, dead or live), in the same order as in actgrid.render.
 * @param {AboutLayer} about
 * @param {number} count
 * @param {Pick<State, "order" | "show">} state
 */
export function listChannels(about, count, { order, show }) {
  const dead = new Set(about.stats.dead);
  const channels = Array.from({ length: count }, (_, channel) => channel)
    .filter((channel) => show === "all" || dead.has(channel) === (show === "dead"));
  const statistic = STATISTICS[order];
  const values = order === "relevance" ? about.relevance : statistic && about.stats[statistic];
  if (!values) return channels;
  /** @param {number} channel */
  const getValue = (channel) => values[channel] ?? -Infinity; // channels without a value are last
  /** @type {(a: number, b: number) => number} */
  const compare = (a, b) => (getValue(a) === getValue(b) ? a - b : getValue(b) - getValue(a));
  return channels.sort(compare);
}

/**
 * Return a key that is equal for states in which the same data of a layer are shown.
 * @param {string} image
 * @param {number} layer
 * @param {State} state
 */
export function getLayerKey(image, layer, { normalize, scope, order, target }) {
  return [image, layer, normalize, scope, order === "relevance" && target].join("|");
}

/**
 * Load the description and the levels of a layer for an image.
 * @param {string} image
 * @param {number} layer
 * @param {State} state
 * @param {AbortSignal} signal
 * @returns {Promise<LoadedLayer>}
 */
export async function fetchLayer(image, layer, { normalize, scope, order, target }, signal) {
  const [about, levels, ranking] = await Promise.all([
    data.loadJson(data.paths.layer(image, layer), signal),
    data.loadLevels(data.paths.levels(image, layer, normalize, scope), signal),
    order === "relevance" ? data.loadJson(data.paths.relevance(image, layer, target), signal) : null,
  ]);
  return { about: { ...about, relevance: ranking?.relevance }, levels, layer, image };
}

/** The canvas of one image in the layer view. */
class ImageSide {
  /**
   * @param {LayerView} view
   * @param {string} name
   */
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
      view: (viewport) => view.setView(viewport),
      hover: (cell, point, isByKey) => this.showTip(cell, point, isByKey),
      pick: (cell) => updateState({ channel: this.stage.grid?.getChannel(cell) }),
      drawn: () => this.markShown(),
    });
    this.task = new data.LatestTask((error) => this.fail(error));
    /** @type {LoadedLayer & {shown: string} | null} */
    this.loaded = null;
    /** @type {string | null} */
    this.pictureKey = null;
  }

  /**
   * @param {State} state
   * @param {string} image
   * @param {number} layer
   */
  load(state, image, layer) {
    this.task.run(getLayerKey(image, layer, state), async (signal) => {
      if (this.loaded?.layer !== layer) this.clear();
      // Quick responses show no loading indicator, which would flicker.
      const timer = setTimeout(() => this.element.classList.add("loading"), 120);
      signal.addEventListener("abort", () => clearTimeout(timer));
      try {
        const loaded = await fetchLayer(image, layer, state, signal);
        const path = this.view.model.nodes[layer].path;
        const shown = [path, image, state.normalize, state.scope].join("|");
        this.loaded = { ...loaded, shown };
      } finally {
        clearTimeout(timer);
        if (!signal.aborted) this.element.classList.remove("loading");
      }
      this.pictureKey = null;
      this.view.show(getState());
      this.view.announceLayer();
    });
  }

  clear() {
    this.loaded = this.pictureKey = null;
    delete this.canvas.dataset.shown;
    this.note.hidden = true;
    this.stage.show(null, null);
  }

  /**
   * Draw the picture again if the options or the data have changed.
   * @param {State} state
   */
  updatePicture(state) {
    if (!this.loaded) return;
    const { about: { tiles }, levels, layer, image } = this.loaded;
    // Both images show the channels of the first image in its order, to be comparable.
    const first = this.view.sides[0].loaded;
    const reference = first?.layer === layer ? first : this.loaded;
    const key = [state.order, state.show, state.columns, state.cmap, reference.image].join("|");
    if (this.pictureKey !== key) {
      this.pictureKey = key;
      const channels = listChannels(reference.about, tiles.count / tiles.slices, state);
      const { path } = this.view.model.nodes[layer];
      const imageName = this.view.images.getName(image);
      this.canvas.ariaLabel = `Channels of ${path} for ${imageName}. ${HELP}`;
      const grid = new Grid(tiles, channels, state.columns);
      const kind = state.show === "live" ? "active" : state.show;
      const text = `This layer has no ${kind} channels for this image.`;
      showNote(this.note, grid.count ? null : text);
      const lut = this.view.model.getLut(state.cmap);
      this.stage.show(grid.count ? grid.paint(levels, lut) : null, grid);
    }
    this.stage.setView(state.view);
  }

  /** @param {data.RequestError} error */
  fail(error) {
    this.element.classList.remove("loading");
    this.clear();
    showNote(this.note, error.message, true);
    announce(error.message);
    data.reportLostConnection(error);
  }

  markShown() {
    if (!this.loaded || this.canvas.dataset.shown === this.loaded.shown) return;
    this.canvas.dataset.shown = this.loaded.shown;
    performance.mark("shown", { detail: this.loaded.shown });
  }

  /**
   * Show the number and statistics of a channel near the pointer or the keyboard cursor.
   * @param {number | null} cell
   * @param {Point} [point]
   */
  showTip(cell, point, isByKey = false) {
    const { grid } = this.stage;
    this.tip.hidden = cell === null || !point || !grid || !this.loaded;
    if (cell === null || !point || !grid || !this.loaded) return;
    const channel = grid.getChannel(cell);
    const { relevance, stats, tiles } = this.loaded.about;
    const title = this.view.formatChannelTitle(channel);
    const slice = tiles.slices > 1 ? `, slice ${cell % tiles.slices}` : "";
    const lines = formatStatistics(stats, channel);
    if (relevance) lines.push(["relevance", formatNumber(relevance[channel])]);
    this.tip.replaceChildren(make("b", {}, title + slice), definitionList(lines));
    if (stats.dead.includes(channel)) this.tip.append(span("dead", "dead"));
    this.placeTip(point);
    if (isByKey) announce(`${title}${slice}: ${lines.map((line) => line.join(" ")).join(", ")}`);
  }

  /**
   * Move the tip next to a point, inside of the canvas.
   * @param {Point} point
   */
  placeTip(point) {
    /** @type {(position: number, size: number, available: number) => number} */
    const findStart = (position, size, available) => {
      const start = position + 14 + size > available ? position - size - 14 : position + 14;
      return Math.max(4, Math.min(start, available - size - 4));
    };
    const { clientWidth, clientHeight, offsetTop } = this.canvas;
    const { offsetWidth, offsetHeight } = this.tip;
    this.tip.style.left = `${findStart(point.x, offsetWidth, clientWidth)}px`;
    this.tip.style.top = `${offsetTop + findStart(point.y, offsetHeight, clientHeight)}px`;
  }
}

/**
 * Return the statistics of a channel as [name, text] pairs.
 * @param {Omit<Api.ChannelStats, "dead">} stats
 * @param {number} channel
 */
export function formatStatistics(stats, channel) {
  const names = /** @type {const} */ (["mean", "std", "min", "max"]);
  /** @type {[string, string][]} */
  const lines = names.map((name) => [name, formatNumber(stats[name][channel])]);
  lines.push(["zeros", formatPercent(stats.zero_fraction[channel])]);
  if (stats.nonfinite[channel]) lines.push(["not finite", String(stats.nonfinite[channel])]);
  return lines;
}

export class LayerView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    this.sides = [new ImageSide(this, "first"), new ImageSide(this, "second")];
    this.title = make("h2", {});
    this.about = mutedLine();
    this.compareButton = button("Compare", {
      "aria-pressed": "false", title: "Show a second image side by side",
      onclick: () => this.toggleComparison(),
    });
    this.stages = div("stages", ...this.sides.map(({ element }) => element));
    const { is_live: isLive, controls: { layer: controls } } = model;
    const { choices, choices_with_limits: withLimits } = controls.normalize;
    const presets = choices.filter((name) => !parseLimits(name));
    const names = isLive ? [...presets, ...withLimits] : choices;
    this.normalize = select(makePairs(names), (name) => this.chooseNormalization(name));
    this.low = this.makeLimitInput("Low");
    this.high = this.makeLimitInput("High");
    this.limits = make("span", { class: "limits", hidden: true }, this.low, " to ", this.high);
    this.scope = select(makePairs(controls.scope.choices), (scope) => updateState({ scope }));
    this.order = select(makePairs(controls.order.choices), (order) => updateState({ order }));
    this.cmap = select(makePairs(controls.cmap.choices), (cmap) => updateState({ cmap }));
    this.showSelect = select([["all", "all"], ["live", "active"], ["dead", "dead"]],
      (show) => updateState({ show: /** @type {State["show"]} */ (show) }));
    const updateColumns = debounce(250, () => {
      const count = parseInt(this.columns.value, 10);
      updateState({ columns: count > 0 ? count : null, view: null }, { newEntry: false });
    });
    this.columns = make("input", {
      type: "number", min: 1, placeholder: "auto", oninput: updateColumns,
    });
    this.scale = button("fit", {
      class: "scale", title: "Fit to the view (0)", onclick: () => this.setView(null),
    });
    const heading = make("header", { class: "heading" }, div(null, this.title, this.about),
      this.compareButton, saveButton("this view", () => this.save()));
    byId("layer").append(heading, this.buildOptions(controls), this.stages);
  }

  /** @param {Record<string, Api.Control>} controls */
  buildOptions(controls) {
    const normalization = span("joined", this.normalize, this.limits);
    return div("options",
      optionField("Normalization", controls.normalize, normalization),
      optionField("Scope", controls.scope, this.scope),
      optionField("Order", controls.order, this.order),
      optionField("Colormap", controls.cmap, this.cmap), field("Show", this.showSelect),
      optionField("Columns", controls.columns, this.columns, { class: "field narrow" }),
      make("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
        this.makeZoomButton("−", "Zoom out", 1 / 1.5), this.scale,
        this.makeZoomButton("+", "Zoom in", 1.5)));
  }

  /**
   * Create an input for a limit of the normalization.
   * @param {string} label
   */
  makeLimitInput(label) {
    return make("input", {
      type: "number", step: "any", "aria-label": label, onchange: () => this.applyLimits(),
    });
  }

  /**
   * @param {string} text
   * @param {string} label
   * @param {number} factor
   */
  makeZoomButton(text, label, factor) {
    return button(text, {
      "aria-label": label, title: `${label} (${text})`,
      onclick: () => this.sides[0].stage.zoom(factor),
    });
  }

  /** @param {State} state */
  show(state) {
    const hidden = state.tab !== "layer" || state.channel !== null;
    byId("layer").hidden = hidden;
    if (hidden) return;
    const layer = this.model.getLayerIndex(state);
    this.showOptions(state);
    const [first, second] = this.sides;
    if (!state.image) {
      first.clear();
      showNote(first.note, NO_IMAGES);
      return;
    }
    first.load(state, state.image, layer);
    second.element.hidden = state.compare === null;
    first.caption.hidden = second.caption.hidden = state.compare === null;
    if (state.compare !== null) {
      second.load(state, state.compare, layer);
      first.caption.replaceChildren(this.images.getName(state.image));
      second.caption.replaceChildren(this.images.getName(state.compare),
        button("×", {
          class: "quiet",
          "aria-label": "Stop comparing",
          onclick: () => updateState({ compare: null }),
        }));
    } else {
      second.task.stop();
    }
    for (const side of this.sides) if (!side.element.hidden) side.updatePicture(state);
    this.showHeading(layer);
    this.showScale(state);
  }

  /** @param {State} state */
  showOptions(state) {
    const limits = parseLimits(state.normalize);
    this.normalize.value = this.model.is_live && limits ? limits.name : state.normalize;
    this.limits.hidden = !(limits && this.model.is_live);
    if (limits && document.activeElement !== this.low && document.activeElement !== this.high) {
      this.low.value = String(limits.low);
      this.high.value = String(limits.high);
    }
    this.scope.value = state.scope;
    this.order.value = state.order;
    this.cmap.value = state.cmap;
    this.showSelect.value = state.show;
    if (document.activeElement !== this.columns) {
      this.columns.value = String(state.columns ?? "");
    }
    this.compareButton.ariaPressed = String(state.compare !== null);
  }

  /** @param {number} layer */
  showHeading(layer) {
    const node = this.model.nodes[layer];
    this.title.textContent = node.path;
    const about = this.sides[0].loaded?.about;
    const parts = [node.type, formatShape(about ? [null, ...about.shape] : node.shape)];
    if (node.parameters) parts.push(formatCount(node.parameters, "parameter"));
    if (about?.stats.dead.length) parts.push(`${about.stats.dead.length} of ${node.channels} dead`);
    if (about && about.tiles.step > 1) parts.push(`every ${about.tiles.step}th pixel shown`);
    const grid = this.sides[0].stage.grid;
    if (about && grid && grid.strips > 1) {
      const [steps, length] = [grid.tiles.height, grid.stripHeight];
      parts.push(`${steps} steps in ${grid.strips} strips of ${length}`);
    }
    this.about.textContent = parts.join(" · ");
  }

  /** Announce the current layer to screen readers. */
  announceLayer() {
    announce(`${this.title.textContent}: ${this.about.textContent}`);
  }

  /**
   * Return the number of a channel, or its class name if the layer has the scores of classes.
   * @param {number} channel
   */
  formatChannelTitle(channel) {
    const state = getState();
    const layer = this.model.getLayerIndex(state);
    // A binary classifier with one output gives the score of the second class.
    const { classes } = this.model;
    const index = channel + (classes?.count ?? 0) - (this.model.nodes[layer].channels ?? 0);
    const label = classes?.node === layer ? this.model.getLabel(index) : null;
    const noun = this.model.nodes[layer].kind === "dense" ? "Unit" : "Channel";
    return `${noun} ${channel}${label ? `: ${label}` : ""}`;
  }

  /** @param {Viewport | null} view */
  setView(view) {
    for (const { stage } of this.sides) stage.setView(view);
    updateState({ view }, { newEntry: false });
  }

  /** @param {State} state */
  showScale({ view }) {
    const isFit = !view || !this.sides[0].stage.grid;
    this.scale.textContent = isFit ? "fit" : formatPercent(view.scale);
  }

  /** @param {string} name */
  chooseNormalization(name) {
    const stats = this.sides[0].loaded?.about.stats;
    // Dense layers may have too many units for Math.min(...values).
    const minima = (stats?.min ?? []).filter((value) => value !== null);
    const maxima = (stats?.max ?? []).filter((value) => value !== null);
    const min = minima.reduce((low, value) => Math.min(low, value), Infinity);
    const max = maxima.reduce((high, value) => Math.max(high, value), -Infinity);
    const round = (/** @type {number} */ value) => +value.toPrecision(3);
    const [low, high] = min < max ? [round(min), round(max)] : [0, 1];
    const { choices, choices_with_limits: withLimits } = this.model.controls.layer.normalize;
    const preset = choices.find((choice) => parseLimits(choice)?.name === name);
    const normalize = withLimits.includes(name) ? formatLimits(name, low, high) : name;
    updateState({ normalize: preset ?? normalize });
  }

  applyLimits() {
    const text = formatLimits(this.normalize.value, this.low.value, this.high.value);
    const isValid = this.model.acceptsNormalization(text);
    for (const input of [this.low, this.high]) input.ariaInvalid = String(!isValid);
    if (isValid) updateState({ normalize: text });
  }

  toggleComparison() {
    const { compare, image } = getState();
    const other = compare === null ? this.images.getNextId(image) : null;
    if (compare === other) showToast("There is no other image to compare with.");
    updateState({ compare: other });
  }

  focus() {
    this.sides[0].canvas.focus({ preventScroll: true });
  }

  /**
   * Return the position of the first tile of a channel in the window; null if it is not drawn.
   * @param {number} channel
   */
  getTileRect(channel) {
    const { stage, canvas } = this.sides[0];
    const cell = stage.grid?.getFirstCell(channel);
    if (!stage.grid || cell === undefined || !stage.picture) return null;
    const { left, top } = canvas.getBoundingClientRect();
    const rect = stage.toScreen(stage.grid.getCellRect(cell));
    return { ...rect, x: rect.x + left, y: rect.y + top };
  }

  save() {
    const state = getState();
    const pictures = this.sides.filter(({ element }) => !element.hidden)
      .flatMap(({ stage }) => stage.picture ?? []);
    if (!pictures.length) return;
    // The gap has the colour of level 0, as the padding in pictures of actgrid.render.
    saveCanvas(
      joinPictures(pictures, this.model.getLut(state.cmap)[0]),
      `${this.title.textContent.replaceAll("/", "-")}.png`,
    );
  }
}
