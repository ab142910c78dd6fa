/** The channel view: one channel enlarged, its statistics, its kernel and its values for images. */

import * as data from "./data.js";
import {
  button, byId, createCanvas, definitionList, div, field, formatCount, formatNumber, formatPercent,
  hasModifier, make, mutedLine, Progress, saveButton, select, showNote, slider, span,
} from "./dom.js";
import { loadThumbnail } from "./images.js";
import { fetchLayer, formatStatistics, listChannels } from "./layer.js";
import { chooseColumns, Grid } from "./levels.js";
import { createFilledCanvas, drawText, saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

const IMAGE_COUNT = 24; // images whose values are loaded at once
const STATISTICS = { mean: "mean", max: "max", zero_fraction: "fraction of zeros" };

export class ChannelView {
  constructor(model, images, layerView) {
    Object.assign(this, { model, images, layerView, imageLimit: IMAGE_COUNT });
    this.layerTask = new data.LatestTask((error) => this.fail(error));
    this.histogramTask = new data.LatestTask((error) => data.reportLostConnection(error));
    this.kernelTask = new data.LatestTask((error) => this.showSectionError(this.kernel, error));
    this.datasetTask = new data.LatestTask((error) => this.showSectionError(this.dataset, error));
    this.imagesTask = new data.LatestTask((error) => this.showSectionError(this.across, error));
    this.maximizeTask = new data.LatestTask((error) => this.showSectionError(this.maximal, error));
    this.build();
  }

  build() {
    this.title = make("h2", { tabindex: -1 });
    this.about = mutedLine();
    this.tile = make("canvas", { class: "tile", role: "img" });
    this.tileCaption = make("figcaption", { class: "muted" });
    this.overlay = make("canvas", { class: "tile", role: "img" });
    this.blend = slider((blend) => updateState({ blend }, { newEntry: false }));
    this.overlayFigure = make("figure", {}, this.overlay,
      make("figcaption", {}, field("Overlay alpha", this.blend)));
    this.figures = div("figures", make("figure", {}, this.tile, this.tileCaption),
      this.overlayFigure);
    for (const name of ["dataset", "maximal", "across"]) this[name] = div(null);
    for (const name of ["stats", "histogram", "kernel"]) this[name] = div(name);
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
    const stepButton = (text, step, label) =>
      button(text, { "aria-label": label, title: label, onclick: () => this.moveBy(step) });
    const back = button("← Layer", {
      title: "All channels of the layer (Esc)", onclick: () => updateState({ channel: null }),
    });
    return make("header", { class: "heading" }, back,
      div(null, this.title, this.about),
      stepButton("‹", -1, "Previous channel (←)"), stepButton("›", 1, "Next channel (→)"),
      saveButton("this view", () => this.save()));
  }

  show(state) {
    const hidden = state.tab !== "layer" || state.channel === null || !state.image;
    const isOpening = byId("channel").hidden && !hidden;
    byId("channel").hidden = hidden;
    if (hidden) {
      for (const task of [this.layerTask, this.histogramTask, this.kernelTask, this.datasetTask,
        this.imagesTask, this.maximizeTask]) task.stop();
      return;
    }
    const layer = this.model.getLayerIndex(state);
    this.layer = layer;
    this.node = this.model.nodes[layer];
    this.showHeading(state);
    if (isOpening) this.title.focus({ preventScroll: true });
    const key = [state.image, layer, state.normalize, state.scope].join("|");
    this.layerTask.run(key, async (signal) => {
      byId("channel").classList.add("busy");
      const [loaded, picture] = await Promise.all([
        fetchLayer(state.image, layer, state, signal),
        data.loadBitmap(data.paths.picture(state.image), signal),
      ]).finally(() => byId("channel").classList.remove("busy"));
      this.loaded = { ...loaded, picture, layer, image: state.image };
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

  fail(error) {
    this.loaded = null;
    this.body.hidden = true;
    showNote(this.note, error.message, true);
    data.reportLostConnection(error);
  }

  showSectionError(element, error) {
    element.replaceChildren(make("p", { class: "error" }, error.message));
    data.reportLostConnection(error);
  }

  showHeading(state) {
    this.title.textContent = this.layerView.formatChannelTitle(state.channel);
    const { path, type, channels, kind } = this.node;
    const noun = kind === "dense" ? "units" : "channels";
    this.about.textContent = `${path} · ${type} · ${channels ?? "?"} ${noun}`;
  }

  /* Statistics for this image */

  draw(state) {
    const { loaded } = this;
    if (!loaded || loaded.layer !== this.layer) return;
    const { about, levels, picture } = loaded;
    const lut = this.model.getLut(state.cmap);
    const canvas = this.drawTiles(about.tiles, levels, state.channel, lut);
    drawEnlarged(this.tile, canvas);
    this.tile.dataset.shown = [this.node.path, state.channel, loaded.image].join("|");
    this.tile.ariaLabel = `${this.title.textContent} in the colormap ${state.cmap}`;
    const { tiles } = about;
    this.tileCaption.textContent = `${tiles.height * tiles.step} × ${tiles.width * tiles.step}`
      + (tiles.slices > 1 ? `, ${tiles.slices} slices` : "");
    this.figures.hidden = this.node.kind === "dense"; // a unit is a single pixel
    const isImage = this.node.kind === "image";
    this.overlayFigure.hidden = !isImage;
    this.blend.value = state.blend;
    if (isImage) {
      drawEnlarged(this.overlay, blendMap(picture, canvas, state.blend));
      this.overlay.ariaLabel = `${this.title.textContent} over the image`;
    }
    const lines = formatStatistics(about.stats, state.channel);
    this.stats.replaceChildren(definitionList(lines));
    if (about.stats.dead.includes(state.channel)) {
      this.stats.append(make("p", { class: "dead" }, "Dead: all values are equal."));
    }
    this.histogramTask.run(loaded.image + this.layer, async (signal) => {
      this.histograms = null;
      this.histogram.classList.add("stale");
      const path = data.paths.histograms(loaded.image, this.layer);
      this.histograms = await data.loadJson(path, signal);
      this.drawHistogram(getState());
    });
    if (this.histograms) this.drawHistogram(state);
  }

  /** Draw the tiles of one channel, one per slice, in a grid that is nearest to square. */
  drawTiles(tiles, levels, channel, lut) {
    const columns = chooseColumns(tiles.slices, tiles.height, tiles.width, 1);
    const canvas = new Grid(tiles, [channel], columns).paint(levels, lut);
    return canvas.height > 8 * canvas.width ? transpose(canvas) : canvas;
  }

  drawHistogram(state) {
    const { bins, low, high, counts } = this.histograms;
    this.histogram.classList.remove("stale");
    const row = counts.length === 1 ? 0 : state.channel;
    if (!counts[row] || low[row] === null) {
      this.histogram.replaceChildren(mutedLine("This channel has no finite values."));
      return;
    }
    const maxCount = Math.max(...counts[row], 1);
    const bars = counts[row].map((count, bin) => {
      const height = count ? Math.max(1.5, 90 * Math.sqrt(count / maxCount)) : 0;
      const formatEdge = (edge) => formatNumber(low[row] + ((high[row] - low[row]) * edge) / bins);
      const x = 8 * bin;
      return make("svg:g", {},
        make("svg:rect", { class: "hit", x, y: 0, width: 8, height: 90 }),
        make("svg:rect", { x: x + 0.5, y: 90 - height, width: 7, height }),
        make("svg:title", {},
          `${formatEdge(bin)} to ${formatEdge(bin + 1)}: ${formatCount(count, "value")}`));
    });
    const [min, max] = [formatNumber(low[row]), formatNumber(high[row])];
    const isPooled = counts.length === 1 && this.node.channels > 1;
    this.histogram.replaceChildren(
      make("svg:svg", {
        viewBox: `0 0 ${8 * bins} 91`, preserveAspectRatio: "none",
        role: "img", "aria-label": `Histogram from ${min} to ${max}`,
      }, ...bars, make("svg:line", { x1: 0, x2: 8 * bins, y1: 90.5, y2: 90.5 })),
      make("p", { class: "muted ends" }, span(null, min),
        span(null, isPooled ? "all units, square root scale" : "square root scale"),
        span(null, max)));
  }

  /* Kernel */

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
    if (this.kernelLoaded) this.drawKernel(state);
  }

  drawKernel(state) {
    const { about, levels } = this.kernelLoaded;
    const { tiles, shape } = about;
    if ((state.channel + 1) * tiles.slices > tiles.count) {
      this.kernel.replaceChildren(mutedLine("This channel has no separate kernel."));
      return;
    }
    let canvas = this.drawTiles(tiles, levels, state.channel, this.model.getLut(about.cmap));
    if (tiles.slices === 1 && Math.min(canvas.width, canvas.height) === 1) {
      canvas = foldStrip(canvas);
    }
    const label = `Kernel of channel ${state.channel}`;
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
    const ids = [...new Set([...firstIds, state.image])];
    this.imagesTask.run([this.layer, ...ids].join("|"), async (signal) => {
      this.values = new Map();
      this.across.replaceChildren(mutedLine("Running the model on the images…"));
      for (const id of ids) {
        const { stats } = await data.loadJson(data.paths.layer(id, this.layer), signal);
        this.values.set(id, stats);
        this.drawAcross(getState(), ids.length);
      }
    });
    if (this.values?.size) this.drawAcross(state, ids.length);
  }

  drawAcross(state, imageCount) {
    const name = this.statistic.value;
    const rows = [...this.values].map(([id, stats]) => ({ id, value: stats[name][state.channel] }));
    rows.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
    const focused = document.activeElement?.closest(".across button")?.dataset.image;
    const format = name === "zero_fraction" ? formatPercent : formatNumber;
    const list = this.makeBars(rows, format, state.image);
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
      this.across.querySelector(`[data-image="${focused}"]`)?.focus({ preventScroll: true });
    }
  }

  /** Create a list of images with bars for their values; a click selects the image. */
  makeBars(rows, format, current = null) {
    const max = Math.max(...rows.map(({ value }) => Math.abs(value ?? 0)), 1e-30);
    return div("across", ...rows.map(({ id, name, value }) => {
      const title = name ?? this.images.getName(id);
      const image = make("img", { alt: "", width: 36, height: 36 });
      const fill = make("i", { class: value < 0 ? "negative" : null });
      fill.style.width = `${(100 * Math.abs(value ?? 0)) / max}%`;
      if (id) loadThumbnail(image, data.paths.thumbnail(id));
      return button("", {
        title, "data-image": id, disabled: !id, onclick: () => updateState({ image: id }),
        "aria-current": id === current ? "true" : null,
      }, image, span("label", title.split(/[/\\]/).at(-1)), span("value", format(value)),
      span("bar", fill));
    }));
  }

  showDataset(state) {
    this.sections.dataset.hidden = !this.node.has_statistics;
    if (!this.node.has_statistics) return;
    this.datasetTask.run(this.layer, async (signal) => {
      this.datasetLoaded = null;
      this.dataset.replaceChildren(mutedLine("Loading…"));
      this.datasetLoaded = await data.loadJson(data.paths.dataset(this.layer), signal);
      this.drawDataset(getState());
    });
    if (this.datasetLoaded) this.drawDataset(state);
  }

  drawDataset({ channel }) {
    const loaded = this.datasetLoaded;
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
    const onCancel = () => {
      this.maximalKey = null;
      this.showMaximal(getState());
    };
    const progress = new Progress(onCancel);
    progress.show({ state: "running", done: 0, total: 0 });
    this.maximal.replaceChildren(progress.element);
    this.maximizeTask.run(`${layer}|${channel}`, async (signal) => {
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

  /** Open the channel that is `step` positions further in the order of the layer view. */
  moveBy(step) {
    const state = getState();
    const about = this.loaded?.layer === this.layer ? this.loaded.about : null;
    if (!about) return;
    const count = about.tiles.count / about.tiles.slices;
    let channels = listChannels(about, count, state);
    if (!channels.includes(state.channel)) {
      channels = listChannels(about, count, { order: state.order, show: "all" });
    }
    const position = channels.indexOf(state.channel) + step + channels.length;
    updateState({ channel: channels[position % channels.length] });
  }

  handleKey(event) {
    if (byId("channel").hidden || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, #graph, #images, [role=tablist], [role=separator]")) {
      return;
    }
    if (hasModifier(event)) return;
    if (event.key === "ArrowLeft") this.moveBy(-1);
    else if (event.key === "ArrowRight") this.moveBy(1);
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

function makeSection(title, content, ...tools) {
  return make("section", { class: "part" },
    div("tools", make("h3", {}, title), ...tools), content);
}

/** Draw a picture enlarged by an integer factor, without interpolation. */
export function drawEnlarged(canvas, picture, side = 448) {
  const factor = Math.max(1, Math.floor(side / Math.max(picture.width, picture.height)));
  Object.assign(canvas, { width: picture.width * factor, height: picture.height * factor });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/** Return a picture blended with a coloured map, which is resized to the picture. */
export function blendMap(picture, map, alpha) {
  const canvas = createCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.globalAlpha = alpha;
  context.imageSmoothingQuality = "high";
  context.drawImage(map, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Return a picture with rows and columns exchanged. */
function transpose(picture) {
  const canvas = createCanvas(picture.height, picture.width);
  const context = canvas.getContext("2d");
  context.setTransform(0, 1, 1, 0, 0, 0);
  context.drawImage(picture, 0, 0);
  return canvas;
}

/** Return a strip of single pixels, folded row by row into a shape that is nearest to square. */
function foldStrip(strip) {
  const length = Math.max(strip.width, strip.height);
  const columns = chooseColumns(length, 1, 1, 0);
  const canvas = createCanvas(columns, Math.ceil(length / columns));
  const context = canvas.getContext("2d");
  const row = strip.height === 1 ? strip : transpose(strip);
  for (let start = 0, y = 0; start < length; start += columns, y += 1) {
    const count = Math.min(columns, length - start);
    context.drawImage(row, start, 0, count, 1, 0, y, count, 1);
  }
  return canvas;
}
