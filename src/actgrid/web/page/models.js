/** The models view: a layer of two models and their difference, and the classes of both. */

import { ClassList } from "./classes.js";
import * as data from "./data.js";
import {
  announce, button, byId, div, formatNumber, formatShape, make, makePairs, mutedLine, optionField,
  saveButton, select, showNote,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { formatStatistics } from "./layer.js";
import { findMarks } from "./marks.js";
import { formatLimits, parseLimits } from "./model.js";
import { joinPictures, saveCanvas } from "./save.js";
import { fetchLayer, getLayerKey, GridSide, listChannels, sortByValue } from "./side.js";
import { getState, updateState } from "./state.js";

/** @import { Images } from "./images.js" */
/** @import { Model } from "./model.js" */
/** @import { Owner } from "./side.js" */
/** @import { State, Viewport } from "./state.js" */

export class ModelsView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    this.title = make("h2", {});
    this.about = mutedLine();
    const { normalize, scope, cmap } = model.controls.layer;
    const names = normalize.choices.filter((name) => !parseLimits(name));
    this.normalize = select(makePairs(names), (name) => updateState({ normalize: name }));
    this.scope = select(makePairs(scope.choices), (name) => updateState({ scope: name }));
    this.cmap = select(makePairs(cmap.choices), (name) => updateState({ cmap: name }));
    this.sortButton = button("Largest difference first", {
      "aria-pressed": "false", title: "Sort the channels by their largest absolute difference",
      onclick: () => updateState({ sort: getState().sort === "layer" ? "difference" : "layer" }),
    });
    const otherName = model.other?.name ?? "";
    // Two states of one model often have the same name.
    const sides = model.name === otherName ? ["first", "second"] : [model.name, otherName];
    const labels = [...sides, sides.join(" − ")];
    this.sides = labels.map((label, index) => {
      const side = new GridSide(this.makeOwner(label), ["first", "second", "difference"][index]);
      side.caption.hidden = false;
      side.caption.textContent = label;
      return side;
    });
    this.classes = labels.slice(0, 2).map((name) => new ClassList(`Classes of ${name}`));
    this.classTasks = this.classes.map((list) =>
      new data.LatestTask((error) => list.showError(error.message)));
    byId("models").append(
      make("header", { class: "heading" }, div(null, this.title, this.about), this.sortButton,
        saveButton("this view", () => this.save())),
      div("options", optionField("Normalization", normalize, this.normalize),
        optionField("Scope", scope, this.scope), optionField("Colormap", cmap, this.cmap)),
      div("class-lists", ...this.classes.map(({ element }, index) =>
        div(null, make("h3", {}, labels[index]), element))),
      div("stages", ...this.sides.map(({ element }) => element)));
  }

  /**
   * @param {string} label
   * @returns {Owner}
   */
  makeOwner(label) {
    return {
      setView: (view) => this.setView(view),
      pick: (channel) => updateState({ tab: "layer", channel }),
      update: () => {
        this.show(getState());
        announce(`${this.title.textContent}: ${label}`);
      },
      formatTitle: (channel) => `${this.node.kind === "dense" ? "Unit" : "Channel"} ${channel}`,
      formatLines: (stats, channel) => [...formatStatistics(stats, channel),
        ...this.formatDifference(channel)],
    };
  }

  get node() {
    return this.model.nodes[this.model.getLayerIndex(getState())];
  }

  /**
   * Return the largest difference of a channel as [name, text] pairs.
   * @param {number} channel
   * @returns {[string, string][]}
   */
  formatDifference(channel) {
    const largest = this.difference?.largest[channel];
    return largest === undefined ? [] : [["largest difference", formatNumber(largest)]];
  }

  /** The loaded differences of the layer, if there are any. */
  get difference() {
    const about = this.sides[2].loaded?.about;
    return about && "largest" in about ? /** @type {Api.Difference} */ (about) : null;
  }

  /** @param {State} state */
  show(state) {
    const { other } = this.model;
    byId("models").hidden = state.tab !== "models";
    if (state.tab !== "models" || !other) {
      for (const { task } of this.sides) task.stop();
      return;
    }
    const layer = this.model.getLayerIndex(state);
    const { path } = this.model.nodes[layer];
    this.normalize.value = state.normalize;
    this.scope.value = state.scope;
    this.cmap.value = state.cmap;
    this.sortButton.ariaPressed = String(state.sort === "difference");
    this.title.textContent = path;
    const [first, second, difference] = this.sides;
    if (!state.image) {
      this.sides.forEach((side) => side.clear());
      showNote(first.note, NO_IMAGES);
      return;
    }
    this.showClasses(state);
    const otherLayer = other.layers[layer];
    this.load(first, state, layer, otherLayer);
    if (otherLayer === null) {
      this.about.textContent = "";
      second.explain(`${other.name} has no layer ${path} that can be drawn.`);
      difference.explain("There is no difference, because only one model has this layer.");
    } else {
      this.load(second, state, layer, otherLayer);
      this.showDifference(state, layer);
    }
    this.draw(state);
  }

  /**
   * Load the layer of a model. With the scope of the layer, both models have one colour scale.
   * @param {GridSide} side
   * @param {State} state
   * @param {number} layer
   * @param {number | null} otherLayer
   */
  load(side, state, layer, otherLayer) {
    const { image, normalize, scope } = state;
    if (!image) return;
    const shown = [this.model.nodes[layer].path, image, normalize, scope].join("|");
    const isOther = side === this.sides[1];
    side.load(getLayerKey(image, layer, state), shown, layer, async (signal) => {
      const scale = otherLayer === null ? state
        : await this.findScale(state, layer, otherLayer, signal);
      const index = isOther && otherLayer !== null ? otherLayer : layer;
      return { ...await fetchLayer(image, index, scale, signal, isOther), layer };
    });
  }

  /**
   * Return the normalization of both models: between the lowest and the highest value that either
   * shows, if the scale of each is one of all its tiles.
   * @param {State} state
   * @param {number} layer
   * @param {number} otherLayer
   * @param {AbortSignal} signal
   * @returns {Promise<State>}
   */
  async findScale(state, layer, otherLayer, signal) {
    const { image, normalize, scope } = state;
    const paths = [data.paths.range(image, layer, normalize, scope),
      data.getOtherPath(data.paths.range(image, otherLayer, normalize, scope))];
    /** @type {Api.ColorRange[]} */
    const ranges = await Promise.all(paths.map((path) => data.loadJson(path, signal)));
    const name = this.model.other?.shared_scale ?? "";
    const [low, high] = [Math.min(...ranges.map((range) => range.low[0] ?? Infinity)),
      Math.max(...ranges.map((range) => range.high[0] ?? -Infinity))];
    const isShared = ranges.every((range) => range.low.length === 1) && low < high
      && Number.isFinite(high - low);
    return { ...state, normalize: isShared ? formatLimits(name, low, high) : normalize };
  }

  /**
   * @param {State} state
   * @param {number} layer
   */
  showDifference({ image }, layer) {
    const [first, second, side] = this.sides;
    if (!image || first.loaded?.layer !== layer || second.loaded?.layer !== layer) return;
    const shapes = [first.loaded, second.loaded].map(({ about }) =>
      formatShape([null, ...about.shape]));
    this.about.textContent = [...new Set(shapes)].join(" and ");
    if (shapes[0] !== shapes[1]) {
      side.explain(`There is no difference, because the shapes differ: ${shapes.join(" and ")}.`);
      return;
    }
    const key = [this.model.nodes[layer].path, image].join("|");
    side.load(key, key, layer, async (signal) => {
      const [about, levels] = await Promise.all([
        data.loadJson(data.paths.difference(image, layer, "json"), signal),
        data.loadLevels(data.paths.difference(image, layer, "png"), signal),
      ]);
      const range = { low: [-about.limit], high: [about.limit], low_meaning: "", high_meaning: "" };
      return { about, levels, range, layer, image };
    });
  }

  /** @param {State} state */
  draw(state) {
    const layer = this.model.getLayerIndex(state);
    const reference = this.sides[0].loaded;
    if (reference?.layer !== layer) return;
    const { difference } = this;
    const isSorted = state.sort === "difference" && difference !== null;
    for (const side of this.sides) {
      if (side.loaded?.layer !== layer) continue;
      const { about } = side.loaded;
      const count = about.tiles.count / about.tiles.slices;
      const isSameCount = about.tiles.count === reference.about.tiles.count;
      const order = { order: state.order, show: /** @type {const} */ ("all") };
      const channels = isSorted && difference.largest.length === count
        ? sortByValue([...difference.largest.keys()], difference.largest)
        : listChannels(isSameCount ? reference.about : about, count, order);
      const isDifference = side === this.sides[2];
      const cmap = isDifference && difference ? difference.cmap : state.cmap;
      const key = [isSorted, state.order, cmap, reference.image].join("|");
      side.draw(key, channels, {
        columns: state.columns, lut: this.model.getLut(cmap),
        marks: findMarks(isDifference ? { ...about.stats, dead: [] } : about.stats),
        label: `Channels of ${this.title.textContent}: ${side.caption.textContent}`,
      });
      side.stage.setView(state.view);
    }
  }

  /** @param {State} state */
  showClasses({ image }) {
    const path = data.paths.classes(image);
    const paths = [this.model.classes ? path : null,
      this.model.other?.has_classes ? data.getOtherPath(path) : null];
    this.classes.forEach((list, index) => {
      const address = paths[index];
      if (address === null) {
        list.showError("This model has no classes.");
        return;
      }
      this.classTasks[index].run(address, async (signal) => {
        list.markStale();
        list.show(await data.loadJson(address, signal));
      });
    });
  }

  /** @param {Viewport | null} view */
  setView(view) {
    for (const { stage } of this.sides) stage.setView(view);
    updateState({ view }, { newEntry: false });
  }

  save() {
    const pictures = this.sides.flatMap(({ stage }) => stage.picture ?? []);
    if (!pictures.length) return;
    const name = `${this.title.textContent.replaceAll("/", "-")}-models.png`;
    saveCanvas(joinPictures(pictures, this.model.getLut(getState().cmap)[0]), name);
  }
}
