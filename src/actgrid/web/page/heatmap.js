/** The heatmap view: the attribution map of a target class over the image. */

import { blendMap, drawEnlarged } from "./channel.js";
import * as data from "./data.js";
import {
  announce, button, byId, createCanvas, div, formatNumber, getContext, make, makePairs, mutedLine,
  optionField, Progress, saveButton, select, showNote, slider, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { paintLevels } from "./levels.js";
import { saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";
import { TargetField } from "./target.js";

/** @import { Images } from "./images.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Loaded A heatmap: levels over the picture of an image, or a coloured drawing.
 * @property {Api.Heatmap} about
 * @property {string} key
 * @property {ImageBitmap} picture
 * @property {Levels} [levels] of an image
 * @property {ImageBitmap} [drawing] of another sample
 */

const DEFAULT = "";

export class HeatmapView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    this.task = new data.LatestTask((error) => this.fail(error));
    this.progress = new Progress(() => this.cancel());
    /** @type {string | number | null} */
    this.cancelled = null; // key of the cancelled heatmap
    /** @type {Loaded | null} */
    this.loaded = null;
    const controls = model.controls.heatmap;
    /** @type {[string, string]} */
    const defaultPair = [DEFAULT, "automatic"];
    this.method = select(makePairs(controls.method.choices), (method) => updateState({ method }));
    const paths = model.heatmapLayers.map(({ path }) => path);
    this.layer = select([defaultPair, ...makePairs(paths)],
      (path) => updateState({ over: path === DEFAULT ? null : path }));
    this.cmap = select([defaultPair, ...makePairs(controls.cmap.choices)],
      (name) => updateState({ colours: name === DEFAULT ? null : name }));
    this.alpha = slider((alpha) => updateState({ alpha }, { newEntry: false }));
    this.layerField = optionField("Layer", controls.layer, this.layer);
    this.title = make("h2", { role: "status" }, "Heatmap");
    this.about = mutedLine();
    this.source = make("p", { class: "muted source" });
    this.note = make("div", { class: "note", hidden: true });
    this.canvas = makeCanvas(null);
    this.imageCanvas = makeCanvas("Model input");
    this.mapCanvas = makeCanvas("Heatmap without the image");
    const isImage = model.input_kind === "image";
    this.slice = make("input", {
      type: "range", min: 0, value: 0, "aria-label": "Slice", oninput: () => this.draw(getState()),
    });
    this.sliceCaption = span("muted", "");
    this.sliceField = make("div", { class: "slice", hidden: true }, this.slice, this.sliceCaption);
    this.tokens = make("div", { class: "tokens", hidden: true });
    const caption = isImage ? "Heatmap over the image" : "Heatmap of the sample";
    this.figures = div("scroller parts",
      this.tokens, this.sliceField,
      div("figures",
        makeFigure("large", this.canvas, caption),
        makeFigure(null, this.imageCanvas, isImage ? "Image" : "Sample"),
        isImage ? makeFigure(null, this.mapCanvas, "Heatmap") : null),
      this.source);
    this.target = new TargetField(model, "heatmap");
    const options = div("options", optionField("Method", controls.method, this.method),
      this.target.element, this.layerField);
    if (isImage) {
      options.append(optionField("Colormap", controls.cmap, this.cmap),
        optionField("Alpha", controls.alpha, this.alpha));
    }
    byId("heatmap").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      options, this.target.error, this.progress.element, this.note, this.figures);
  }

  /** @param {State} state */
  show(state) {
    const hidden = state.tab !== "heatmap" || !this.model.methods.length;
    byId("heatmap").hidden = hidden;
    if (hidden) {
      this.task.stop();
      this.hideProgress();
      return;
    }
    const method = this.model.getMethod(state);
    this.showOptions(state, method);
    if (!state.image) {
      this.showNote(NO_IMAGES);
      return;
    }
    const target = this.model.findTarget(state.target) ?? "predicted";
    const over = method.layer && state.over !== null ? this.model.index.get(state.over) : null;
    const layer = over ?? null;
    const key = [state.image, method.name, target, layer].join("|");
    if (key === this.cancelled) return;
    this.cancelled = null;
    this.task.run(key, async (signal) => {
      byId("heatmap").classList.add("busy");
      this.title.textContent = `Computing ${method.name}…`;
      this.about.textContent = "";
      /** @param {string} kind */
      const getPath = (kind) =>
        data.paths.heatmap(state.image, method.name, target, layer, kind);
      const polling = new AbortController();
      this.progress.show(null);
      if (this.model.is_live) {
        data.pollProgress(getPath("/progress.json"), AbortSignal.any([signal, polling.signal]),
          (report) => this.progress.show(report));
      }
      const isImage = this.model.input_kind === "image";
      const [about, levels, drawing, picture] = await Promise.all([
        data.loadJson(getPath(".json"), signal),
        isImage ? data.loadLevels(getPath(".png"), signal) : undefined,
        isImage ? undefined : data.loadBitmap(getPath(".png"), signal),
        data.loadBitmap(data.paths.picture(state.image), signal),
      ]).finally(() => {
        polling.abort();
        if (!signal.aborted) this.hideProgress();
      });
      this.loaded = { about, levels, drawing, picture, key };
      if (about.slices) {
        this.slice.max = String(about.slices.count - 1);
        this.slice.value = String(Math.floor(about.slices.count / 2));
      }
      this.showNote(null);
      this.draw(getState());
    });
    if (this.loaded?.key === key) this.draw(state);
  }

  /**
   * @param {State} state
   * @param {Api.Method} method
   */
  showOptions(state, method) {
    this.method.value = method.name;
    const period = method.summary.endsWith(".") ? "" : ".";
    this.source.textContent = `${method.summary}${period} ${method.source}`;
    this.layerField.hidden = !(method.layer && this.model.is_live);
    this.layer.value = state.over ?? DEFAULT;
    this.cmap.value = state.colours ?? DEFAULT;
    this.alpha.value = String(state.alpha);
    this.target.show(state);
  }

  /** Hide the progress of a computation. */
  hideProgress() {
    byId("heatmap").classList.remove("busy");
    this.progress.show(null);
  }

  /** Cancel the computation, also on the server, until the user starts it again. */
  cancel() {
    this.cancelled = this.task.key;
    this.task.stop();
    this.hideProgress();
    this.clear();
    const restart = () => {
      this.cancelled = null;
      this.show(getState());
    };
    this.showNote("The computation was cancelled.");
    this.note.append(button("Compute", { onclick: restart }));
    announce("Cancelled");
  }

  /** @param {State} state */
  draw(state) {
    if (!this.loaded) return;
    const { about, picture, key } = this.loaded;
    const overlay = this.makeOverlay(state, this.loaded);
    drawEnlarged(this.canvas, overlay, 672);
    drawEnlarged(this.imageCanvas, picture, 224);
    if (this.loaded.levels) drawEnlarged(this.mapCanvas, this.paintMap(state, this.loaded), 224);
    this.sliceField.hidden = !about.slices;
    if (about.slices) {
      this.sliceCaption.textContent = `slice ${this.slice.value} of ${about.slices.count}`;
    }
    this.showTokens(about.tokens);
    const label = about.label ?? (about.target === null ? "" : `class ${about.target}`);
    const score = about.is_logit ? "logit" : "score";
    this.title.textContent = label || this.model.getMethod(state).name;
    this.about.textContent = [
      about.target === null ? null : `class ${about.target}`,
      about.score === null ? null : `${score} ${formatNumber(about.score)}`,
      about.layer ? `layer ${about.layer}` : null,
      about.signed ? "signed: the middle colour is 0" : null,
      about.zero_reason ? `zero everywhere: ${about.zero_reason}` : null,
    ].filter(Boolean).join(" · ");
    this.canvas.ariaLabel = `${about.method} heatmap of ${label} over the image`;
    this.canvas.dataset.shown = key;
  }

  /**
   * Return the heatmap over the image, or the drawing of another sample: a slice of a volume.
   * @param {State} state
   * @param {Loaded} loaded
   */
  makeOverlay(state, loaded) {
    const { about, picture, drawing } = loaded;
    if (!drawing) return blendMap(picture, this.paintMap(state, loaded), state.alpha);
    return cutSlice(about, drawing, Number(this.slice.value));
  }

  /**
   * Show the tokens of a text on the colours of their attributions.
   * @param {Api.Token[] | null} tokens
   */
  showTokens(tokens) {
    this.tokens.hidden = !tokens;
    for (const canvas of [this.canvas, this.imageCanvas]) {
      canvas.parentElement?.toggleAttribute("hidden", Boolean(tokens));
    }
    this.tokens.replaceChildren(...(tokens ?? []).flatMap(({ text, value, background, color }) => {
      const element = span("token", text);
      element.style.background = background;
      element.style.color = color;
      if (value !== null) element.title = formatNumber(value);
      return [element, " "];
    }));
  }

  /**
   * Draw the heatmap alone, by default in its recommended colormap.
   * @param {State} state
   * @param {Loaded} loaded
   */
  paintMap({ colours }, { about, levels }) {
    const { colormaps } = this.model;
    const recommended = about.cmap in colormaps ? about.cmap : Object.keys(colormaps)[0];
    if (!levels) throw new TypeError("only the heatmap of an image has levels");
    return paintLevels(levels, this.model.getLut(colours ?? recommended));
  }

  /** @param {string | null} text */
  showNote(text, canRetry = false) {
    this.figures.hidden = Boolean(text);
    showNote(this.note, text, canRetry);
  }

  clear() {
    this.title.textContent = "Heatmap";
    this.about.textContent = "";
    this.loaded = null;
    delete this.canvas.dataset.shown;
  }

  /** @param {data.RequestError} error */
  fail(error) {
    this.clear();
    this.showNote(error.message, true);
    data.reportLostConnection(error);
  }

  save() {
    if (!this.loaded) return;
    const state = getState();
    const name = this.images.getName(state.image).replace(/\.\w+$/, "");
    const overlay = this.makeOverlay(state, this.loaded);
    saveCanvas(overlay, `${name}-${this.loaded.about.method}.png`);
  }
}

/**
 * Return a slice of the drawing of a volume, or the whole drawing of another sample.
 * @param {Api.Heatmap} about
 * @param {ImageBitmap} drawing
 * @param {number} slice
 */
export function cutSlice({ slices }, drawing, slice) {
  const { columns, width, height } = slices ?? { columns: 1, ...sizeOf(drawing) };
  const index = slices ? slice : 0;
  const canvas = createCanvas(width, height);
  const [x, y] = [(index % columns) * width, Math.floor(index / columns) * height];
  getContext(canvas).drawImage(drawing, x, y, width, height, 0, 0, width, height);
  return canvas;
}

/** @param {ImageBitmap} picture */
const sizeOf = ({ width, height }) => ({ width, height });

/** @param {string | null} label */
const makeCanvas = (label) => make("canvas", { class: "tile", role: "img", "aria-label": label });

/**
 * @param {string | null} className
 * @param {HTMLCanvasElement} canvas
 * @param {string} caption
 */
const makeFigure = (className, canvas, caption) => make("figure", { class: className }, canvas,
  make("figcaption", { class: "muted" }, caption));
