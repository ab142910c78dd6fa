/** The channel view: one channel enlarged, its statistics, its kernel and its values for images. */

import { ColourBar } from "./bar.js";
import * as data from "./data.js";
import {
  button, byId, createCanvas, definitionList, div, field, formatCount, formatNumber, formatPercent,
  getContext, hasModifier, make, makeSvg, mutedLine, Progress, saveButton, select, showNote,
  slider, span,
} from "./dom.js";
import { loadThumbnail } from "./images.js";
import { formatStatistics } from "./layer.js";
import { chooseColumns, Grid } from "./levels.js";
import { explainMarks, findMarks } from "./marks.js";
import { createFilledCanvas, drawText, saveCanvas } from "./save.js";
import { fetchLayer, getLayerKey, listChannels } from "./side.js";
import { getState, updateState } from "./state.js";
import { getSwitchedOff, toggleChannel } from "./switches.js";

/** @import { Images } from "./images.js" */
/** @import { LayerView } from "./layer.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { LoadedLayer } from "./side.js" */
/** @import { State } from "./state.js" */

/** @typedef {State & {image: string, channel: number}} ChannelState State of an open channel. */
/** @typedef {{id: string | null, name?: string, value: number | null}} Bar */

const IMAGE_COUNT = 24; // images whose values are loaded at once
const STATISTICS = { mean: "mean", max: "max", zero_fraction: "fraction of zeros" };

export class ChannelView {
  /**
   * @param {Model} model
   * @param {Images} images
   * @param {LayerView} layerView
   */
  constructor(model, images, layerView) {
    this.model = model;
    this.images = images;
    this.layerView = layerView;
    this.imageLimit = IMAGE_COUNT;
    this.layer = model.initialLayer;
    /** @type {LoadedLayer & {picture: ImageBitmap} | null} */
    this.loaded = null;
    /** @type {Api.Histograms | null} */
    this.histograms = null;
    /** @type {{about: Api.Kernel, levels: Levels} | null} */
    this.kernelLoaded = null;
    /** @type {Api.Dataset | null} */
    this.datasetLoaded = null;
    /**
     * Statistics of the layer by image id.
     * @type {Map<string, Api.ChannelStats>}
     */
    this.values = new Map();
    /** @type {string | null} */
    this.maximalKey = null;
    this.layerTask = new data.LatestTask((error) => this.fail(error));
    this.histogramTask = new data.LatestTask((error) => data.reportLostConnection(error));
    this.kernelTask = new data.LatestTask((error) => this.showSectionError(this.kernel, error));
    this.datasetTask = new data.LatestTask((error) => this.showSectionError(this.dataset, error));
    this.imagesTask = new data.LatestTask((error) => this.showSectionError(this.across, error));
    this.maximizeTask = new data.LatestTask((error) => this.showSectionError(this.maximal, error));
    this.switchButton = button("Switch channel off", {
      "aria-pressed": "false", title: "Set the channel to zero, and show the classes without it (O)",
      onclick: () => this.toggle(),
    });
    this.title = make("h2", { tabindex: -1 });
    this.about = mutedLine();
    this.tile = make("canvas", { class: "tile", role: "img" });
    this.tileCaption = make("figcaption", { class: "muted" });
    this.overlay = make("canvas", { class: "tile", role: "img" });
    this.blend = slider((blend) => updateState({ blend }, { newEntry: false }));
    this.overlayFigure = make("figure", {}, this.overlay,
      make("figcaption", {}, field("Overlay alpha", this.blend)));
    this.bar = new ColourBar();
    this.figures = div("figures",
      make("figure", {}, this.tile, this.bar.element, this.tileCaption),
      this.overlayFigure);
    this.dataset = div(null);
    this.maximal = div(null);
    this.across = div(null);
    this.stats = div("stats");
    this.histogram = div("histogram");
    this.kernel = div("kernel");
    this.statistic = select(Object.entries(STATISTICS), () => this.showAcross());
    this.statistic.ariaLabel = "Statistic";
    this.sections = {
      kernel: makeSection("Kernel", this.kernel),
      across: makeSection("Across images", this.across, this.statistic),
      dataset: makeSection("Across the dataset", this.dataset),
      maximal: makeSection("Activation maximization", this.maximal),
    };
    this.note = make("div", { class: "note", hidden: true });
    const { kernel, across, dataset, maximal } = this.sections;
    this.body = div("scroller parts", this.figures,
      div("facts", makeSection("Statistics for this image", this.stats),
        makeSection("Histogram", this.histogram), kernel),
      div("facts", across, dataset, maximal));
    byId("channel").append(this.buildHeading(), this.note, this.body);
    document.addEventListener("keydown", (event) => this.handleKey(event));
  }

  buildHeading() {
    /** @type {(text: string, step: number, label: string) => HTMLButtonElement} */
    const stepButton = (text, step, label) =>
      button(text, { "aria-label": label, title: label, onclick: () => this.moveBy(step) });
    const back = button("← Layer", {
      title: "All channels of the layer (Esc)", onclick: () => updateState({ channel: null }),
    });
    return make("header", { class: "heading" }, back,
      div(null, this.title, this.about), this.switchButton,
      stepButton("‹", -1, "Previous channel (←)"), stepButton("›", 1, "Next channel (→)"),
      saveButton("this view", () => this.save()));
  }

  get node() {
    return this.model.nodes[this.layer];
  }

  /** @param {State} state */
  show(state) {
    const isOpen = isChannelOpen(state);
    const isOpening = byId("channel").hidden && isOpen;
    byId("channel").hidden = !isOpen;
    if (!isOpen) {
      for (const task of [this.layerTask, this.histogramTask, this.kernelTask, this.datasetTask,
        this.imagesTask, this.maximizeTask]) task.stop();
      return;
    }
    const layer = this.model.getLayerIndex(state);
    this.layer = layer;
    this.showHeading(state);
    if (isOpening) this.title.focus({ preventScroll: true });
    const key = getLayerKey(state.image, layer, state);
    this.layerTask.run(key, async (signal) => {
      byId("channel").classList.add("busy");
      const [loaded, picture] = await Promise.all([
        fetchLayer(state.image, layer, state, signal),
        data.loadBitmap(data.paths.picture(state.image), signal),
      ]).finally(() => byId("channel").classList.remove("busy"));
      this.loaded = { ...loaded, picture };
      showNote(this.note, null);
      this.body.hidden = false;
      this.show(getState());
    });
    this.draw(state);
    this.showKernel(state);
    this.showDataset(state);
    this.showAcross();
    this.showMaximal(state);
  }

  /** @param {data.RequestError} error */
  fail(error) {
    this.loaded = null;
    this.body.hidden = true;
    showNote(this.note, error.message, true);
    data.reportLostConnection(error);
  }

  /**
   * @param {HTMLElement} element
   * @param {data.RequestError} error
   */
  showSectionError(element, error) {
    element.replaceChildren(make("p", { class: "error" }, error.message));
    data.reportLostConnection(error);
  }

  /** @param {ChannelState} state */
  showHeading(state) {
    this.title.textContent = this.layerView.formatTitle(state.channel);
    const { path, type, channels, kind } = this.node;
    const noun = kind === "dense" ? "units" : "channels";
    const isOff = getSwitchedOff(state, this.layer).includes(state.channel);
    this.switchButton.ariaPressed = String(isOff);
    this.switchButton.hidden = !this.model.canSwitch(this.layer);
    this.about.textContent = `${path} · ${type} · ${channels ?? "?"} ${noun}`;
  }

  /* Statistics for this image */

  /** @param {ChannelState} state */
  draw(state) {
    const { loaded } = this;
    if (!loaded || loaded.layer !== this.layer) return;
    const { about, levels, range, picture } = loaded;
    const lut = this.model.getLut(state.cmap);
    const canvas = this.drawTiles(about.tiles, levels, state.channel, lut);
    drawEnlarged(this.tile, canvas);
    this.tile.dataset.shown = [this.node.path, state.channel, loaded.image].join("|");
    this.tile.ariaLabel = `${this.title.textContent} in the colormap ${state.cmap}`;
    const { tiles } = about;
    this.bar.showRange(lut, range, state.channel * tiles.slices,
      (state.channel + 1) * tiles.slices);
    this.tileCaption.textContent = `${tiles.height * tiles.step} × ${tiles.width * tiles.step}`
      + (tiles.slices > 1 ? `, ${tiles.slices} slices` : "");
    this.figures.hidden = this.node.kind === "dense"; // a unit is a single pixel
    const isImage = this.node.kind === "image" && this.model.input_kind === "image";
    this.overlayFigure.hidden = !isImage;
    this.blend.value = String(state.blend);
    if (isImage) {
      drawEnlarged(this.overlay, blendMap(picture, canvas, state.blend));
      this.overlay.ariaLabel = `${this.title.textContent} over the image`;
    }
    const lines = formatStatistics(about.stats, state.channel);
    this.stats.replaceChildren(definitionList(lines));
    const mark = findMarks(about.stats).get(state.channel);
    if (mark) this.stats.append(make("p", { class: "dead" }, ...explainMarks([mark])));
    this.histogramTask.run(loaded.image + this.layer, async (signal) => {
      this.histograms = null;
      this.histogram.classList.add("stale");
      const path = data.paths.histograms(loaded.image, this.layer);
      this.histograms = await data.loadJson(path, signal);
      this.drawHistogram(getState());
    });
    this.drawHistogram(state);
  }

  /**
   * Draw the tiles of one channel, one per slice, in a grid that is nearest to square.
   * @param {Api.Tiles} tiles
   * @param {Levels} levels
   * @param {number} channel
   * @param {Uint32Array} lut
   */
  drawTiles(tiles, levels, channel, lut) {
    const columns = chooseColumns(tiles.slices, tiles.height, tiles.width, 1);
    const canvas = new Grid(tiles, [channel], columns).paint(levels, lut);
    return canvas.height > 8 * canvas.width ? transpose(canvas) : canvas;
  }

  /** @param {State} state */
  drawHistogram({ channel }) {
    if (!this.histograms || channel === null) return;
    const { bins, counts } = this.histograms;
    this.histogram.classList.remove("stale");
    const row = counts.length === 1 ? 0 : channel;
    const [low, high] = [this.histograms.low[row], this.histograms.high[row]];
    if (!counts[row] || low === null || high === null) {
      this.histogram.replaceChildren(mutedLine("This channel has no finite values."));
      return;
    }
    const maxCount = Math.max(...counts[row], 1);
    const bars = counts[row].map((count, bin) => {
      const height = count ? Math.max(1.5, 90 * Math.sqrt(count / maxCount)) : 0;
      /** @param {number} edge */
      const formatEdge = (edge) => formatNumber(low + ((high - low) * edge) / bins);
      const x = 8 * bin;
      return makeSvg("g", {},
        makeSvg("rect", { class: "hit", x, y: 0, width: 8, height: 90 }),
        makeSvg("rect", { x: x + 0.5, y: 90 - height, width: 7, height }),
        makeSvg("title", {},
          `${formatEdge(bin)} to ${formatEdge(bin + 1)}: ${formatCount(count, "value")}`));
    });
    const [min, max] = [formatNumber(low), formatNumber(high)];
    const isPooled = counts.length === 1 && (this.node.channels ?? 0) > 1;
    this.histogram.replaceChildren(
      makeSvg("svg", {
        viewBox: `0 0 ${8 * bins} 91`, preserveAspectRatio: "none",
        role: "img", "aria-label": `Histogram from ${min} to ${max}`,
      }, ...bars, makeSvg("line", { x1: 0, x2: 8 * bins, y1: 90.5, y2: 90.5 })),
      make("p", { class: "muted ends" }, span(null, min),
        span(null, isPooled ? "all units, square root scale" : "square root scale"),
        span(null, max)));
  }

  /* Kernel */

  /** @param {ChannelState} state */
  showKernel(state) {
    this.sections.kernel.hidden = !this.node.kernel;
    if (!this.node.kernel) return;
    this.kernelTask.run(this.layer, async (signal) => {
      this.kernelLoaded = null;
      this.kernel.replaceChildren(mutedLine("Loading…"));
      const [about, levels] = await Promise.all([
        data.loadJson(data.paths.kernel(this.layer, "json"), signal),
        data.loadLevels(data.paths.kernel(this.layer, "png"), signal),
      ]);
      this.kernelLoaded = { about, levels };
      this.drawKernel(getState());
    });
    this.drawKernel(state);
  }

  /** @param {State} state */
  drawKernel({ channel }) {
    if (!this.kernelLoaded || channel === null) return;
    const { about, levels } = this.kernelLoaded;
    const { tiles, shape } = about;
    if ((channel + 1) * tiles.slices > tiles.count) {
      this.kernel.replaceChildren(mutedLine("This channel has no separate kernel."));
      return;
    }
    let canvas = this.drawTiles(tiles, levels, channel, this.model.getLut(about.cmap));
    if (tiles.slices === 1 && Math.min(canvas.width, canvas.height) === 1) {
      canvas = foldStrip(canvas);
    }
    const label = `Kernel of channel ${channel}`;
    const kernelCanvas = make("canvas", { class: "tile small", role: "img", "aria-label": label });
    drawEnlarged(kernelCanvas, canvas, 208);
    const range = `${formatNumber(about.min)} to ${formatNumber(about.max)}`;
    this.kernel.replaceChildren(kernelCanvas, mutedLine(
      `${shape.join(" × ")}; blue: negative, red: positive; weights of the layer: ${range}`));
  }

  /* Across images */

  showAcross() {
    const state = getState();
    const firstIds = [...this.images.items.keys()].slice(0, this.imageLimit);
    const ids = [...new Set(state.image ? [...firstIds, state.image] : firstIds)];
    this.imagesTask.run([this.layer, ...ids].join("|"), async (signal) => {
      this.values = new Map();
      this.across.replaceChildren(mutedLine("Running the model on the images…"));
      for (const id of ids) {
        const { stats } = await data.loadJson(data.paths.layer(id, this.layer), signal);
        this.values.set(id, stats);
        this.drawAcross(getState(), ids.length);
      }
    });
    if (this.values.size) this.drawAcross(state, ids.length);
  }

  /**
   * @param {State} state
   * @param {number} imageCount
   */
  drawAcross({ channel, image }, imageCount) {
    if (channel === null) return;
    const name = /** @type {keyof typeof STATISTICS} */ (this.statistic.value);
    const rows = [...this.values].map(([id, stats]) => ({ id, value: stats[name][channel] }));
    rows.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
    const focused = document.activeElement?.closest(".across button")?.getAttribute("data-image");
    const format = name === "zero_fraction" ? formatPercent : formatNumber;
    const list = this.makeBars(rows, format, image);
    const remaining = this.images.items.size - imageCount;
    this.across.replaceChildren(list);
    if (this.values.size < imageCount) {
      list.append(mutedLine(`${this.values.size} of ${imageCount} images…`));
    } else if (remaining > 0) {
      const onclick = () => {
        this.imageLimit += IMAGE_COUNT;
        this.showAcross();
      };
      this.across.append(button(`${Math.min(remaining, IMAGE_COUNT)} more images`, { onclick }));
    }
    if (focused) {
      const again = this.across.querySelector(`[data-image="${focused}"]`);
      if (again instanceof HTMLElement) again.focus({ preventScroll: true });
    }
  }

  /**
   * Create a list of images with bars for their values; a click selects the image.
   * @param {Bar[]} rows
   * @param {(value: number | null) => string} format
   * @param {string | null} [current]
   */
  makeBars(rows, format, current = null) {
    const max = Math.max(...rows.map(({ value }) => Math.abs(value ?? 0)), 1e-30);
    return div("across", ...rows.map(({ id, name, value }) => {
      const title = name ?? this.images.getName(id);
      const image = make("img", { alt: "", width: 36, height: 36 });
      const fill = make("i", { class: (value ?? 0) < 0 ? "negative" : null });
      fill.style.width = `${(100 * Math.abs(value ?? 0)) / max}%`;
      if (id) loadThumbnail(image, data.paths.thumbnail(id));
      return button("", {
        title, "data-image": id, disabled: !id, onclick: () => updateState({ image: id }),
        "aria-current": id === current ? "true" : null,
      }, image, span("label", title.split(/[/\\]/).at(-1)), span("value", format(value)),
      span("bar", fill));
    }));
  }

  /** @param {ChannelState} state */
  showDataset(state) {
    this.sections.dataset.hidden = !this.node.has_statistics;
    if (!this.node.has_statistics) return;
    this.datasetTask.run(this.layer, async (signal) => {
      this.datasetLoaded = null;
      this.dataset.replaceChildren(mutedLine("Loading…"));
      this.datasetLoaded = await data.loadJson(data.paths.dataset(this.layer), signal);
      this.drawDataset(getState());
    });
    this.drawDataset(state);
  }

  /** @param {State} state */
  drawDataset({ channel }) {
    const loaded = this.datasetLoaded;
    if (!loaded || channel === null) return;
    const lines = formatStatistics({ ...loaded, nonfinite: [] }, channel);
    const active = `${loaded.activating_images[channel]} of ${formatCount(loaded.images, "image")}`;
    lines.push(["active in", active]);
    const top = loaded.top[channel]
      .map(({ name, image, maximum }) => ({ id: image, name, value: maximum }));
    const isDead = loaded.dead.includes(channel);
    this.dataset.replaceChildren(div("stats", definitionList(lines),
      isDead ? make("p", { class: "dead" }, `Dead for all ${loaded.images} images.`) : null));
    if (!top.length) return;
    this.dataset.append(make("h4", { class: "muted" }, "Top images"),
      this.makeBars(top, formatNumber));
  }

  /* Activation maximization */

  /** @param {State} state */
  showMaximal(state) {
    const isAvailable = this.model.maximize && this.model.is_live;
    this.sections.maximal.hidden = !isAvailable;
    if (!isAvailable) return;
    const key = `${this.layer}|${state.channel}`;
    if (this.maximalKey === key) return;
    this.maximalKey = key;
    this.maximizeTask.stop();
    this.maximal.replaceChildren(
      button("Compute", { onclick: () => this.computeMaximal() }),
      mutedLine("Optimizes an image, starting from noise, to maximize the mean of this channel."));
  }

  computeMaximal() {
    const { layer } = this;
    const { channel } = getState();
    if (channel === null) return;
    const onCancel = () => {
      this.maximalKey = null;
      this.showMaximal(getState());
    };
    const progress = new Progress(onCancel);
    progress.show({ state: "running", done: 0, total: 0 });
    this.maximal.replaceChildren(progress.element);
    this.maximizeTask.run(`${layer}|${channel}`, async (signal) => {
      /** @param {string} kind */
      const getPath = (kind) => data.paths.maximized(layer, channel, kind);
      const polling = new AbortController();
      data.pollProgress(getPath("/progress.json"), AbortSignal.any([signal, polling.signal]),
        (report) => progress.show(report));
      const src = await data.loadImageUrl(getPath(".png"), signal).finally(() => polling.abort());
      const alt = `Image that maximizes channel ${channel} of ${this.node.path}`;
      this.maximal.replaceChildren(make("img", { src, class: "maximal", alt }));
    });
  }

  /* Navigation */

  /**
   * Open the channel that is `step` positions further in the order of the layer view.
   * @param {number} step
   */
  moveBy(step) {
    const state = getState();
    const about = this.loaded?.layer === this.layer ? this.loaded.about : null;
    if (!about || state.channel === null) return;
    const count = about.tiles.count / about.tiles.slices;
    let channels = listChannels(about, count, state);
    if (!channels.includes(state.channel)) {
      channels = listChannels(about, count, { order: state.order, show: "all" });
    }
    const position = channels.indexOf(state.channel) + step + channels.length;
    updateState({ channel: channels[position % channels.length] });
  }

  /** Switch the channel off, or on if it is off. */
  toggle() {
    const { channel } = getState();
    if (channel !== null && this.model.canSwitch(this.layer)) toggleChannel(this.layer, channel);
  }

  /** @param {KeyboardEvent} event */
  handleKey(event) {
    if (byId("channel").hidden || document.querySelector("dialog[open]")) return;
    if (!(event.target instanceof Element)) return;
    if (event.target.closest("input, select, #graph, #images, [role=tablist], [role=separator]")) {
      return;
    }
    if (hasModifier(event)) return;
    if (event.key === "ArrowLeft") this.moveBy(-1);
    else if (event.key === "ArrowRight") this.moveBy(1);
    else if (event.key === "o") this.toggle();
    else if (event.key === "Escape") {
      updateState({ channel: null });
      this.layerView.focus();
    } else return;
    event.preventDefault();
  }

  /** Save the tile and its overlay on the image side by side, with a title. */
  save() {
    const { tile, overlay } = this;
    const pictures = this.overlayFigure.hidden ? [tile] : [tile, overlay];
    const side = 448;
    const style = getComputedStyle(document.body);
    const width = 24 + pictures.length * (side + 24);
    const { canvas, context } = createFilledCanvas(width, side + 72, style.backgroundColor);
    context.fillStyle = style.color;
    context.font = `600 18px ${style.fontFamily}`;
    drawText(context, `${this.node.path}: ${this.title.textContent}`, 24, 33, canvas.width - 48);
    pictures.forEach((picture, index) => {
      const scale = Math.min(side / picture.width, side / picture.height);
      context.imageSmoothingEnabled = scale < 1;
      const left = 24 + index * (side + 24);
      context.drawImage(picture, left, 48, picture.width * scale, picture.height * scale);
    });
    saveCanvas(canvas, `${this.node.path.replaceAll("/", "-")}-channel-${getState().channel}.png`);
  }
}

/**
 * Return whether a state shows a channel of a layer for an image.
 * @param {State} state
 * @returns {state is ChannelState}
 */
const isChannelOpen = (state) =>
  state.tab === "layer" && state.channel !== null && Boolean(state.image);

/**
 * @param {string} title
 * @param {HTMLElement} content
 * @param {...HTMLElement} tools
 */
function makeSection(title, content, ...tools) {
  return make("section", { class: "part" },
    div("tools", make("h3", {}, title), ...tools), content);
}

/** @typedef {HTMLCanvasElement | ImageBitmap} Picture */

/**
 * Draw a picture enlarged by an integer factor, without interpolation.
 * @param {HTMLCanvasElement} canvas
 * @param {Picture} picture
 */
export function drawEnlarged(canvas, picture, side = 448) {
  const factor = Math.max(1, Math.floor(side / Math.max(picture.width, picture.height)));
  Object.assign(canvas, { width: picture.width * factor, height: picture.height * factor });
  const context = getContext(canvas);
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/**
 * Return a picture blended with a coloured map, which is resized to the picture.
 * @param {Picture} picture
 * @param {Picture} map
 * @param {number} alpha
 */
export function blendMap(picture, map, alpha) {
  const canvas = createCanvas(picture.width, picture.height);
  const context = getContext(canvas);
  context.drawImage(picture, 0, 0);
  context.globalAlpha = alpha;
  context.imageSmoothingQuality = "high";
  context.drawImage(map, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * Return a picture with rows and columns exchanged.
 * @param {Picture} picture
 */
function transpose(picture) {
  const canvas = createCanvas(picture.height, picture.width);
  const context = getContext(canvas);
  context.setTransform(0, 1, 1, 0, 0, 0);
  context.drawImage(picture, 0, 0);
  return canvas;
}

/**
 * Return a strip of single pixels, folded row by row into a shape that is nearest to square.
 * @param {HTMLCanvasElement} strip
 */
function foldStrip(strip) {
  const length = Math.max(strip.width, strip.height);
  const columns = chooseColumns(length, 1, 1, 0);
  const canvas = createCanvas(columns, Math.ceil(length / columns));
  const context = getContext(canvas);
  const row = strip.height === 1 ? strip : transpose(strip);
  for (let start = 0, y = 0; start < length; start += columns, y += 1) {
    const count = Math.min(columns, length - start);
    context.drawImage(row, start, 0, count, 1, 0, y, count, 1);
  }
  return canvas;
}
