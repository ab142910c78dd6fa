/** The layer view: all channels of a layer for one image, or for two images side by side. */

import { ClassList } from "./classes.js";
import * as data from "./data.js";
import {
  announce, button, byId, debounce, div, field, formatCount, formatNumber,
  formatPercent, formatShape, make, makePairs, mutedLine, optionField, saveButton, select,
  showNote, showToast, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { findMarks } from "./marks.js";
import { formatLimits, parseLimits } from "./model.js";
import { joinPictures, saveCanvas } from "./save.js";
import { fetchLayer, getLayerKey, GridSide, listChannels } from "./side.js";
import { getState, updateState } from "./state.js";
import { getSwitchedOff } from "./switches.js";

/** @import { Images } from "./images.js" */
/** @import { Model } from "./model.js" */
/** @import { State, Viewport } from "./state.js" */

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

/**
 * Return the score of a class and its rank among all classes as [name, text] pairs.
 * @param {Api.ChannelStats} stats
 * @param {number} channel
 * @returns {[string, string][]}
 */
function formatScore({ mean }, channel) {
  const score = mean[channel];
  if (score === null || mean.length < 2) return [["score", formatNumber(score)]];
  const rank = 1 + mean.filter((other) => other !== null && other > score).length;
  return [["score", formatNumber(score)], ["rank", `${rank} of ${mean.length}`]];
}

export class LayerView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    this.sides = [new GridSide(this, "first"), new GridSide(this, "second")];
    this.title = make("h2", {});
    this.about = mutedLine();
    this.compareButton = button("Compare", {
      "aria-pressed": "false", title: "Show a second image side by side",
      onclick: () => this.toggleComparison(),
    });
    this.classes = new ClassList("Classes with the highest scores", {
      point: (index) => this.pointToClass(index),
      pick: (index) => updateState({ channel: this.findUnit(index) }),
    });
    this.classesTask = new data.LatestTask((error) => this.classes.showError(error.message));
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
    byId("layer").append(heading, this.buildOptions(controls), this.classes.element, this.stages);
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
    this.load(first, state, state.image, layer);
    second.element.hidden = state.compare === null;
    first.caption.hidden = second.caption.hidden = state.compare === null;
    if (state.compare !== null) {
      this.load(second, state, state.compare, layer);
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
    for (const side of this.sides) if (!side.element.hidden) this.draw(side, state);
    this.showHeading(layer);
    this.showScale(state);
    this.showClasses(state);
  }

  /**
   * List the classes with the highest scores if the layer has the scores of named classes.
   * @param {State} state
   */
  showClasses(state) {
    const isOutput = this.findClass(0) !== null && this.model.getLabel(0) !== null;
    this.classes.element.hidden = !isOutput;
    if (!isOutput) return;
    this.classesTask.run(String(state.image), async (signal) => {
      this.classes.markStale();
      this.classes.show(await data.loadJson(data.paths.classes(state.image), signal));
    });
  }

  /**
   * Show the unit of a class as if the cursor was on it; null hides the cursor.
   * @param {number | null} index
   */
  pointToClass(index) {
    const { stage } = this.sides[0];
    stage.setCursor(index === null ? null : stage.grid?.getFirstCell(this.findUnit(index)) ?? null);
  }

  /**
   * @param {GridSide} side
   * @param {State} state
   * @param {string} image
   * @param {number} layer
   */
  load(side, state, image, layer) {
    const shown = [this.model.nodes[layer].path, image, state.normalize, state.scope].join("|");
    side.load(getLayerKey(image, layer, state), shown, layer, (signal) => fetchLayer(image, layer, state, signal));
  }

  /** Show a layer that has been loaded. */
  update() {
    this.show(getState());
    this.announceLayer();
  }

  /**
   * @param {GridSide} side
   * @param {State} state
   */
  draw(side, state) {
    if (!side.loaded) return;
    const { about: { tiles }, layer, image } = side.loaded;
    // Both images show the channels of the first image in its order, to be comparable.
    const first = this.sides[0].loaded;
    const reference = first?.layer === layer ? first : side.loaded;
    const key = [state.order, state.show, state.columns, state.cmap, state.off, reference.image]
      .join("|");
    const channels = listChannels(reference.about, tiles.count / tiles.slices, state);
    const label = `Channels of ${this.model.nodes[layer].path} for ${this.images.getName(image)}`;
    const kind = state.show === "live" ? "active" : state.show;
    const empty = `This layer has no ${kind} channels for this image.`;
    const lut = this.model.getLut(state.cmap);
    const marks = findMarks(side.loaded.about.stats, getSwitchedOff(state, layer));
    side.draw(key, channels, { columns: state.columns, lut, label, empty, marks });
    side.stage.setView(state.view);
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

  /** Number of classes without a unit: 1 for a binary classifier, which scores the second class. */
  get unitlessClasses() {
    const { classes, nodes } = this.model;
    return classes ? classes.count - (nodes[classes.node].channels ?? 0) : 0;
  }

  /**
   * Return the class whose score is a channel of the current layer; null for other layers.
   * @param {number} channel
   */
  findClass(channel) {
    const isOutput = this.model.classes?.node === this.model.getLayerIndex(getState());
    return isOutput ? channel + this.unitlessClasses : null;
  }

  /**
   * Return the unit with the score of a class.
   * @param {number} index
   */
  findUnit(index) {
    return Math.max(0, index - this.unitlessClasses);
  }

  /** @param {number} channel */
  pick(channel) {
    updateState({ channel });
  }

  /**
   * @param {Api.ChannelStats} stats
   * @param {number} channel
   */
  formatLines(stats, channel) {
    return this.findClass(channel) === null
      ? formatStatistics(stats, channel) : formatScore(stats, channel);
  }

  /**
   * Return the number of a channel, or its class name if the layer has the scores of classes.
   * @param {number} channel
   */
  formatTitle(channel) {
    const index = this.findClass(channel);
    const label = index === null ? null : this.model.getLabel(index);
    const { kind } = this.model.nodes[this.model.getLayerIndex(getState())];
    return `${kind === "dense" ? "Unit" : "Channel"} ${channel}${label ? `: ${label}` : ""}`;
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
