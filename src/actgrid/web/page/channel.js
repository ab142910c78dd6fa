/** One channel: large, over the image, in numbers, in its weights, and across other images. */

import * as data from "./data.js";
import {
  blank, button, byId, counted, div, field, make, number, percent, Progress, say, saveButton,
  select, slider, soft, span, terms, withModifier,
} from "./dom.js";
import { showPicture } from "./images.js";
import { channelsOf, fetchLayer, statisticsOf } from "./layer.js";
import { Grid, nearSquare } from "./levels.js";
import { drawText, saveCanvas, sheet } from "./save.js";
import { get, go } from "./state.js";

const MANY = 24; // images a channel is followed across at a time
const ACROSS = { mean: "mean", max: "largest value", zero_fraction: "share of zeros" };

export class ChannelView {
  constructor(model, images, layerView) {
    Object.assign(this, { model, images, layerView, many: MANY });
    this.main = new data.Task((error) => this.fail(error));
    this.details = new data.Task((error) => data.lost(error));
    this.weights = new data.Task((error) => this.failPart(this.kernel, error));
    this.known = new data.Task((error) => this.failPart(this.dataset, error));
    this.others = new data.Task((error) => this.failPart(this.across, error));
    this.dream = new data.Task((error) => this.failPart(this.maximal, error));
    this.build();
  }

  build() {
    this.title = make("h2", { tabindex: -1 });
    this.about = soft();
    this.tile = make("canvas", { class: "tile", role: "img" });
    this.tileCaption = make("figcaption", { class: "soft" });
    this.overlay = make("canvas", { class: "tile", role: "img" });
    this.blend = slider((blend) => go({ blend }, { step: false }));
    this.over = make("figure", {}, this.overlay,
      make("figcaption", {}, field("Map over image", this.blend)));
    this.figures = div("figures", make("figure", {}, this.tile, this.tileCaption), this.over);
    for (const name of ["dataset", "maximal", "across"]) this[name] = div(null);
    for (const name of ["stats", "histogram", "kernel"]) this[name] = div(name);
    this.statistic = select(Object.entries(ACROSS), () => this.showAcross());
    this.statistic.ariaLabel = "Statistic";
    this.parts = {
      kernel: part("Kernel", this.kernel),
      across: part("Across the images", this.across, this.statistic),
      dataset: part("Across the dataset", this.dataset),
      maximal: part("Image that excites it most", this.maximal),
    };
    this.note = make("div", { class: "note", hidden: true });
    const { kernel, across, dataset, maximal } = this.parts;
    this.body = div("scroller parts", this.figures,
      div("facts", part("In this image", this.stats), part("Histogram", this.histogram), kernel),
      div("facts", across, dataset, maximal));
    byId("channel").append(this.buildHeading(), this.note, this.body);
    document.addEventListener("keydown", (event) => this.key(event));
  }

  buildHeading() {
    const step = (text, by, label) =>
      button(text, { "aria-label": label, title: label, onclick: () => this.step(by) });
    const back = { title: "All channels of the layer (Esc)", onclick: () => go({ channel: null }) };
    return make("header", { class: "heading" }, button("← Layer", back),
      div(null, this.title, this.about),
      step("‹", -1, "Previous channel (←)"), step("›", 1, "Next channel (→)"),
      saveButton("this view", () => this.save()));
  }

  show(state) {
    const hidden = state.tab !== "layer" || state.channel === null || !state.image;
    const opened = byId("channel").hidden && !hidden;
    byId("channel").hidden = hidden;
    if (hidden) {
      const { main, details, weights, known, others, dream } = this;
      for (const task of [main, details, weights, known, others, dream]) task.stop();
      return;
    }
    const layer = this.model.layer(state);
    this.layer = layer;
    this.node = this.model.nodes[layer];
    this.showHeading(state);
    if (opened) this.title.focus({ preventScroll: true });
    this.main.run([state.image, layer, state.normalize, state.scope].join("|"), async (signal) => {
      byId("channel").classList.add("busy");
      const [loaded, picture] = await Promise.all([
        fetchLayer(state.image, layer, state, signal),
        data.bitmap(data.paths.picture(state.image), signal),
      ]).finally(() => byId("channel").classList.remove("busy"));
      this.loaded = { ...loaded, picture, layer, image: state.image };
      say(this.note, null);
      this.body.hidden = false;
      this.show(get());
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
    say(this.note, error.message, true);
    data.lost(error);
  }

  failPart(element, error) {
    element.replaceChildren(make("p", { class: "error" }, error.message));
    data.lost(error);
  }

  showHeading(state) {
    this.title.textContent = this.layerView.channelTitle(state.channel);
    const { path, type, channels } = this.node;
    this.about.textContent = `${path} · ${type} · one of ${channels ?? "?"}`;
  }

  /* In this image */

  draw(state) {
    const { loaded } = this;
    if (!loaded || loaded.layer !== this.layer) return;
    const { about, levels, picture } = loaded;
    const canvas = this.tilesOf(about.tiles, levels, state.channel, this.model.lut(state.cmap));
    copyTo(this.tile, canvas);
    this.tile.dataset.shown = [this.node.path, state.channel, loaded.image].join("|");
    this.tile.ariaLabel = `${this.title.textContent} in colours`;
    const { tiles } = about;
    this.tileCaption.textContent = `${tiles.height * tiles.step} × ${tiles.width * tiles.step}`
      + (tiles.slices > 1 ? `, ${tiles.slices} slices` : "");
    this.figures.hidden = this.node.kind === "dense"; // one pixel shows nothing
    const image = this.node.kind === "image";
    this.over.hidden = !image;
    this.blend.value = state.blend;
    if (image) {
      copyTo(this.overlay, blended(picture, canvas, state.blend));
      this.overlay.ariaLabel = `${this.title.textContent} over the image`;
    }
    const lines = statisticsOf(about.stats, state.channel);
    this.stats.replaceChildren(terms(lines));
    if (about.stats.dead.includes(state.channel)) {
      this.stats.append(make("p", { class: "dead" }, "Dead: all its values are the same."));
    }
    this.details.run(loaded.image + this.layer, async (signal) => {
      this.histograms = null;
      this.histogram.classList.add("stale");
      this.histograms = await data.json(data.paths.histograms(loaded.image, this.layer), signal);
      this.drawHistogram(get());
    });
    if (this.histograms) this.drawHistogram(state);
  }

  /** The tiles of one channel: several stand near-square. */
  tilesOf(tiles, levels, channel, lut) {
    const across = nearSquare(tiles.slices, tiles.height, tiles.width, 1);
    const all = new Grid(tiles, [channel], across).paint(levels, lut);
    return all.height > 8 * all.width ? turned(all) : all;
  }

  drawHistogram(state) {
    const { bins, low, high, counts } = this.histograms;
    this.histogram.classList.remove("stale");
    const row = counts.length === 1 ? 0 : state.channel;
    if (!counts[row] || low[row] === null) {
      this.histogram.replaceChildren(soft("No finite values."));
      return;
    }
    const most = Math.max(...counts[row], 1);
    const bars = counts[row].map((count, bin) => {
      const height = count ? Math.max(1.5, 90 * Math.sqrt(count / most)) : 0;
      const edge = (at) => number(low[row] + ((high[row] - low[row]) * at) / bins);
      const x = 8 * bin;
      return make("svg:g", {},
        make("svg:rect", { class: "hit", x, y: 0, width: 8, height: 90 }),
        make("svg:rect", { x: x + 0.5, y: 90 - height, width: 7, height }),
        make("svg:title", {}, `${edge(bin)} to ${edge(bin + 1)}: ${count.toLocaleString("en")}`));
    });
    const [least, largest] = [number(low[row]), number(high[row])];
    const all = counts.length === 1 && this.node.channels > 1;
    this.histogram.replaceChildren(
      make("svg:svg", {
        viewBox: `0 0 ${8 * bins} 91`, preserveAspectRatio: "none",
        role: "img", "aria-label": `Histogram from ${least} to ${largest}`,
      }, ...bars, make("svg:line", { x1: 0, x2: 8 * bins, y1: 90.5, y2: 90.5 })),
      make("p", { class: "soft ends" }, span(null, least),
        span(null, all ? "all units, root scale" : "root scale"), span(null, largest)));
  }

  /* Its weights */

  showKernel(state) {
    this.parts.kernel.hidden = !this.node.kernel;
    if (!this.node.kernel) return;
    this.weights.run(this.layer, async (signal) => {
      this.kernelLoaded = null;
      this.kernel.replaceChildren(soft("Loading…"));
      const [about, levels] = await Promise.all([
        data.json(data.paths.kernel(this.layer, "json"), signal),
        data.levels(data.paths.kernel(this.layer, "png"), signal),
      ]);
      this.kernelLoaded = { about, levels };
      this.drawKernel(get());
    });
    if (this.kernelLoaded) this.drawKernel(state);
  }

  drawKernel(state) {
    const { about, levels } = this.kernelLoaded;
    const { tiles, shape } = about;
    if ((state.channel + 1) * tiles.slices > tiles.count) {
      this.kernel.replaceChildren(soft("This channel has no kernel of its own."));
      return;
    }
    let canvas = this.tilesOf(tiles, levels, state.channel, this.model.lut(about.cmap));
    if (tiles.slices === 1 && Math.min(canvas.width, canvas.height) === 1) canvas = wrapped(canvas);
    const label = `Kernel of channel ${state.channel}`;
    const shown = make("canvas", { class: "tile small", role: "img", "aria-label": label });
    copyTo(shown, canvas, 208);
    const range = `from ${number(about.min)} to ${number(about.max)}`;
    this.kernel.replaceChildren(shown,
      soft(`${shape.join(" × ")}; blue is below 0, red above; all ${range}`));
  }

  /* Across images */

  showAcross() {
    const state = get();
    const listed = [...this.images.items.keys()].slice(0, this.many);
    const ids = [...new Set([...listed, state.image])];
    this.others.run([this.layer, ...ids].join("|"), async (signal) => {
      this.values = new Map();
      this.across.replaceChildren(soft("Running the model on the images…"));
      for (const id of ids) {
        const { stats } = await data.json(data.paths.layer(id, this.layer), signal);
        this.values.set(id, stats);
        this.drawAcross(get(), ids.length);
      }
    });
    if (this.values?.size) this.drawAcross(state, ids.length);
  }

  drawAcross(state, wanted) {
    const name = this.statistic.value;
    const rows = [...this.values].map(([id, stats]) => ({ id, value: stats[name][state.channel] }));
    rows.sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity));
    const focused = document.activeElement?.closest(".across button")?.dataset.image;
    const list = this.bars(rows, name === "zero_fraction" ? percent : number, state.image);
    const rest = this.images.items.size - wanted;
    this.across.replaceChildren(list);
    if (this.values.size < wanted) {
      list.append(soft(`${this.values.size} of ${wanted} images…`));
    } else if (rest > 0) {
      const onclick = () => {
        this.many += MANY;
        this.showAcross();
      };
      this.across.append(button(`${Math.min(rest, MANY)} more images`, { onclick }));
    }
    if (focused) {
      this.across.querySelector(`[data-image="${focused}"]`)?.focus({ preventScroll: true });
    }
  }

  /** Images with bars; a click looks at one. */
  bars(rows, text, current = null) {
    const most = Math.max(...rows.map(({ value }) => Math.abs(value ?? 0)), 1e-30);
    return div("across", ...rows.map(({ id, name, value }) => {
      const title = name ?? this.images.nameOf(id);
      const image = make("img", { alt: "", width: 36, height: 36 });
      const fill = make("i", { class: value < 0 ? "negative" : null });
      fill.style.width = `${(100 * Math.abs(value ?? 0)) / most}%`;
      if (id) showPicture(image, data.paths.thumbnail(id));
      return button("", {
        title, "data-image": id, disabled: !id, onclick: () => go({ image: id }),
        "aria-current": id === current ? "true" : null,
      }, image, span("label", title.split(/[/\\]/).at(-1)), span("value", text(value)),
      span("bar", fill));
    }));
  }

  showDataset(state) {
    this.parts.dataset.hidden = !this.node.measured;
    if (!this.node.measured) return;
    this.known.run(this.layer, async (signal) => {
      this.datasetLoaded = null;
      this.dataset.replaceChildren(soft("Loading…"));
      this.datasetLoaded = await data.json(data.paths.dataset(this.layer), signal);
      this.drawDataset(get());
    });
    if (this.datasetLoaded) this.drawDataset(state);
  }

  drawDataset({ channel }) {
    const loaded = this.datasetLoaded;
    const lines = statisticsOf({ ...loaded, nonfinite: [] }, channel);
    lines.push(["active in", `${loaded.activating_images[channel]} of ${counted(loaded.images, "image")}`]);
    const top = loaded.top[channel]
      .map(({ name, image, maximum }) => ({ id: image, name, value: maximum }));
    const dead = loaded.dead.includes(channel);
    this.dataset.replaceChildren(div("stats", terms(lines),
      dead ? make("p", { class: "dead" }, `Dead in all ${loaded.images} images.`) : null));
    if (!top.length) return;
    this.dataset.append(make("h4", { class: "soft" }, "Largest values in"), this.bars(top, number));
  }

  /* What excites it */

  showMaximal(state) {
    const there = this.model.maximize && this.model.live;
    this.parts.maximal.hidden = !there;
    if (!there) return;
    const key = `${this.layer}|${state.channel}`;
    if (this.maximalKey === key) return;
    this.maximalKey = key;
    this.dream.stop();
    this.maximal.replaceChildren(
      button("Compute it", { onclick: () => this.computeMaximal() }),
      soft("Climbs from noise towards an image that this channel answers to most."));
  }

  computeMaximal() {
    const { layer } = this;
    const { channel } = get();
    const onclick = () => {
      this.maximalKey = null;
      this.showMaximal(get());
    };
    const progress = new Progress(onclick);
    progress.show({ state: "running", done: 0, total: 0 });
    this.maximal.replaceChildren(progress.element);
    this.dream.run(`${layer}|${channel}`, async (signal) => {
      const at = (kind) => data.paths.maximized(layer, channel, kind);
      const done = new AbortController();
      data.follow(at("/progress.json"), AbortSignal.any([signal, done.signal]),
        (now) => progress.show(now));
      const src = await data.picture(at(".png"), signal).finally(() => done.abort());
      const alt = `Image that excites channel ${channel} of ${this.node.path} most`;
      this.maximal.replaceChildren(make("img", { src, class: "maximal", alt }));
    });
  }

  /* Moving on */

  /** The channel before or after this one, in the order of the layer view. */
  step(by) {
    const state = get();
    const about = this.loaded?.layer === this.layer ? this.loaded.about : null;
    if (!about) return;
    const count = about.tiles.count / about.tiles.slices;
    let all = channelsOf(about, count, state);
    if (!all.includes(state.channel)) {
      all = channelsOf(about, count, { order: state.order, show: "all" });
    }
    const next = all[(all.indexOf(state.channel) + by + all.length) % all.length];
    go({ channel: next });
  }

  key(event) {
    if (byId("channel").hidden || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input, select, #graph, #images, [role=tablist], [role=separator]")) {
      return;
    }
    if (withModifier(event)) return;
    if (event.key === "ArrowLeft") this.step(-1);
    else if (event.key === "ArrowRight") this.step(1);
    else if (event.key === "Escape") {
      go({ channel: null });
      this.layerView.focus();
    } else return;
    event.preventDefault();
  }

  /** The tile and the map over the image beside each other, under their names. */
  save() {
    const { tile, overlay } = this;
    const shown = this.over.hidden ? [tile] : [tile, overlay];
    const side = 448;
    const style = getComputedStyle(document.body);
    const width = 24 + shown.length * (side + 24);
    const { canvas, context } = sheet(width, side + 72, style.backgroundColor);
    context.fillStyle = style.color;
    context.font = `600 18px ${style.fontFamily}`;
    drawText(context, `${this.node.path}: ${this.title.textContent}`, 24, 33, canvas.width - 48);
    shown.forEach((picture, index) => {
      const scale = Math.min(side / picture.width, side / picture.height);
      context.imageSmoothingEnabled = scale < 1;
      const left = 24 + index * (side + 24);
      context.drawImage(picture, left, 48, picture.width * scale, picture.height * scale);
    });
    saveCanvas(canvas, `${this.node.path.replaceAll("/", "-")}-channel-${get().channel}.png`);
  }
}

function part(title, inside, ...tools) {
  return make("section", { class: "part" },
    div("tools", make("h3", {}, title), ...tools), inside);
}

/** Show a picture magnified by a whole number, so that its pixels stay what they are. */
export function copyTo(canvas, picture, side = 448) {
  const factor = Math.max(1, Math.floor(side / Math.max(picture.width, picture.height)));
  Object.assign(canvas, { width: picture.width * factor, height: picture.height * factor });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/** A map in colour over a picture, stretched to it. */
export function blended(picture, map, alpha) {
  const canvas = blank(picture.width, picture.height);
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.globalAlpha = alpha;
  context.imageSmoothingQuality = "high";
  context.drawImage(map, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** A tall strip laid down. */
function turned(picture) {
  const canvas = blank(picture.height, picture.width);
  const context = canvas.getContext("2d");
  context.setTransform(0, 1, 1, 0, 0, 0);
  context.drawImage(picture, 0, 0);
  return canvas;
}

/** A strip of single pixels folded near-square, row by row. */
function wrapped(strip) {
  const length = Math.max(strip.width, strip.height);
  const columns = nearSquare(length, 1, 1, 0);
  const canvas = blank(columns, Math.ceil(length / columns));
  const context = canvas.getContext("2d");
  const flat = strip.height === 1 ? strip : turned(strip);
  for (let start = 0, row = 0; start < length; start += columns, row += 1) {
    const count = Math.min(columns, length - start);
    context.drawImage(flat, start, 0, count, 1, 0, row, count, 1);
  }
  return canvas;
}
