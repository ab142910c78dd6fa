/** The grid of a layer for one image, several of which can be shown side by side. */

import { ColourBar } from "./bar.js";
import * as data from "./data.js";
import { announce, definitionList, div, formatNumber, make, showNote, span } from "./dom.js";
import { Grid } from "./levels.js";
import { explainMarks, getMeaning } from "./marks.js";
import { Stage } from "./stage.js";

/** @import { Levels, Point } from "./levels.js" */
/** @import { Mark } from "./marks.js" */
/** @import { State, Viewport } from "./state.js" */

/** @typedef {Api.Layer & {relevance?: Api.Relevance["relevance"]}} AboutLayer */

/**
 * @typedef {object} LoadedLayer
 * @property {AboutLayer} about
 * @property {Levels} levels
 * @property {Api.ColorRange} range
 * @property {number} layer
 * @property {string} image
 */

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
  return values ? sortByValue(channels, values) : channels;
}

/**
 * Sort channels by a value, largest first; channels without a value are last.
 * @param {number[]} channels
 * @param {(number | null)[]} values
 */
export function sortByValue(channels, values) {
  const getValue = (/** @type {number} */ channel) => values[channel] ?? -Infinity;
  return channels.sort((a, b) =>
    (getValue(a) === getValue(b) ? a - b : getValue(b) - getValue(a)));
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
 * @param {Pick<State, "normalize" | "scope" | "order" | "target">} state
 * @param {AbortSignal} signal
 * @param {boolean} [isOther] Whether the layer is one of the second model.
 * @returns {Promise<LoadedLayer>}
 */
export async function fetchLayer(image, layer, state, signal, isOther = false) {
  const { normalize, scope, order, target } = state;
  /** @param {string} path */
  const getPath = (path) => (isOther ? data.getOtherPath(path) : path);
  const [about, levels, range, ranking] = await Promise.all([
    data.loadJson(getPath(data.paths.layer(image, layer)), signal),
    data.loadLevels(getPath(data.paths.levels(image, layer, normalize, scope)), signal),
    data.loadJson(getPath(data.paths.range(image, layer, normalize, scope)), signal),
    order === "relevance" && !isOther
      ? data.loadJson(data.paths.relevance(image, layer, target), signal) : null,
  ]);
  return { about: { ...about, relevance: ranking?.relevance }, levels, range, layer, image };
}

/**
 * @typedef {object} Owner The view that shows one or several grids side by side.
 * @property {(view: Viewport | null) => void} setView
 * @property {(channel: number) => void} pick
 * @property {() => void} update Called after a layer is loaded.
 * @property {(channel: number) => string} formatTitle
 * @property {(stats: Api.ChannelStats, channel: number) => [string, string][]} formatLines
 */

/** The grid of a layer for an image, with a caption, a colour bar and the tips of channels. */
export class GridSide {
  /**
   * @param {Owner} owner
   * @param {string} name
   */
  constructor(owner, name) {
    this.owner = owner;
    this.canvas = make("canvas", {
      class: "grid", role: "application", "aria-roledescription": "grid of channels",
      "aria-label": HELP,
    });
    this.tip = make("div", { class: "tip", hidden: true });
    this.note = make("div", { class: "note", hidden: true });
    this.caption = make("p", { class: "caption", hidden: true });
    this.bar = new ColourBar();
    this.bar.element.hidden = true;
    this.legend = span("legend");
    this.bar.element.append(this.legend);
    this.element = div(`side ${name}`, this.caption, this.canvas, this.bar.element, this.note,
      this.tip);
    this.stage = new Stage(this.canvas, {
      view: (viewport) => owner.setView(viewport),
      hover: (cell, point, isByKey) => this.showTip(cell, point, isByKey),
      pick: (cell) => {
        if (this.stage.grid) owner.pick(this.stage.grid.getChannel(cell));
      },
      drawn: () => this.markShown(),
    });
    this.task = new data.LatestTask((error) => this.fail(error));
    /** @type {LoadedLayer & {shown: string} | null} */
    this.loaded = null;
    /** @type {string | null} */
    this.pictureKey = null;
  }

  /**
   * Load a layer, unless it is loaded.
   * @param {string} key
   * @param {string} shown Text of the data attribute of the canvas once the layer is drawn.
   * @param {number} layer
   * @param {(signal: AbortSignal) => Promise<LoadedLayer>} fetch
   */
  load(key, shown, layer, fetch) {
    this.task.run(key, async (signal) => {
      if (this.loaded?.layer !== layer) this.clear();
      // Quick responses show no loading indicator, which would flicker.
      const timer = setTimeout(() => this.element.classList.add("loading"), 120);
      signal.addEventListener("abort", () => clearTimeout(timer));
      try {
        this.loaded = { ...await fetch(signal), shown };
      } finally {
        clearTimeout(timer);
        if (!signal.aborted) this.element.classList.remove("loading");
      }
      this.pictureKey = null;
      this.owner.update();
    });
  }

  clear() {
    this.loaded = this.pictureKey = null;
    delete this.canvas.dataset.shown;
    this.note.hidden = this.bar.element.hidden = true;
    this.stage.show(null, null);
  }

  /**
   * Draw channels again if the options or the data have changed.
   * @param {string} key
   * @param {number[]} channels
   * @param {{columns: number | null, lut: Uint32Array, label: string, empty?: string,
   *   marks: Map<number, Mark>}} options `empty`: text in place of a grid without channels.
   */
  draw(key, channels, { columns, lut, label, empty = "", marks }) {
    if (!this.loaded || this.pictureKey === key) return;
    this.pictureKey = key;
    const { about, levels, range } = this.loaded;
    this.canvas.ariaLabel = `${label}. ${HELP}`;
    const grid = new Grid(about.tiles, channels, columns);
    showNote(this.note, grid.count ? null : empty);
    this.stage.show(grid.count ? grid.paint(levels, lut) : null, grid, marks);
    this.legend.replaceChildren(...explainMarks(channels.flatMap((i) => marks.get(i) ?? [])));
    this.bar.element.hidden = !grid.count;
    this.bar.showRange(lut, range);
  }

  /**
   * Show a text in place of the grid.
   * @param {string} text
   */
  explain(text) {
    this.task.stop();
    this.clear();
    showNote(this.note, text);
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
    const title = this.owner.formatTitle(channel);
    const slice = tiles.slices > 1 ? `, slice ${cell % tiles.slices}` : "";
    const lines = this.owner.formatLines(stats, channel);
    if (relevance) lines.push(["relevance", formatNumber(relevance[channel])]);
    this.tip.replaceChildren(make("b", {}, title + slice), definitionList(lines));
    const mark = this.stage.marks.get(channel);
    if (mark) this.tip.append(make("p", { class: "dead" }, ...explainMarks([mark])));
    this.placeTip(point);
    const texts = [...lines.map((line) => line.join(" ")), ...(mark ? [getMeaning(mark)] : [])];
    if (isByKey) announce(`${title}${slice}: ${texts.join(", ")}`);
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
