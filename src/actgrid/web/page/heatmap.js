/** The heatmap view: the attribution map of a target class over the image. */

import { blendMap, drawEnlarged } from "./channel.js";
import * as data from "./data.js";
import {
  announce, button, byId, div, formatNumber, make, makePairs, mutedLine, optionField, Progress,
  saveButton, select, showNote, slider, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { paintLevels } from "./levels.js";
import { saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

/** @import { Images } from "./images.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/** @typedef {{about: Api.Heatmap, levels: Levels, picture: ImageBitmap, key: string}} Loaded */

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
    this.targetTask = new data.LatestTask((error) => this.showTargetError(error.message));
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
    this.figures = div("scroller parts",
      div("figures",
        makeFigure("large", this.canvas, "Heatmap over the image"),
        makeFigure(null, this.imageCanvas, "Image"),
        makeFigure(null, this.mapCanvas, "Heatmap")),
      this.source);
    this.targetError = make("p", {
      class: "error wrong", id: "target-error", role: "alert", hidden: true,
    });
    this.target = make("input", {
      type: "search", list: "classes", placeholder: "predicted", autocomplete: "off",
      "aria-describedby": "target-error",
      onchange: () => this.applyTarget(), oninput: () => this.showTargetError(),
    });
    const options = div("options", optionField("Method", controls.method, this.method),
      this.buildTarget(), this.layerField, optionField("Colormap", controls.cmap, this.cmap),
      optionField("Alpha", controls.alpha, this.alpha));
    byId("heatmap").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      options, this.targetError, this.progress.element, this.note, this.figures);
  }

  /** Create the input for the target class; null if the target cannot be selected. */
  buildTarget() {
    if (!this.model.targets) return null;
    const labels = this.model.classes?.labels ?? [];
    const options = labels.map((label, index) => make("option", { value: `${index} ${label}` }));
    const suggestions = make("datalist", { id: "classes" }, ...options);
    const { target } = this.model.controls.heatmap;
    return optionField("Target", target, span("joined", this.target, suggestions));
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
      const [about, levels, picture] = await Promise.all([
        data.loadJson(getPath(".json"), signal), data.loadLevels(getPath(".png"), signal),
        data.loadBitmap(data.paths.picture(state.image), signal),
      ]).finally(() => {
        polling.abort();
        if (!signal.aborted) this.hideProgress();
      });
      this.loaded = { about, levels, picture, key };
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
    if (document.activeElement !== this.target) {
      const index = state.target === "predicted" ? null : this.model.findTarget(state.target);
      const label = index === null ? "" : this.model.getLabel(index) ?? "";
      this.target.value = index === null ? "" : `${index} ${label}`.trim();
    }
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

  /** Use the entered class name or index as target; the predicted class if the input is empty. */
  applyTarget() {
    const text = this.target.value.trim();
    const index = text ? this.model.findTarget(text) : null;
    this.showTargetError();
    if (!text || index !== null) {
      updateState({ target: index === null ? "predicted" : String(index) });
      return;
    }
    // The error message of the server explains the problem and suggests similar names.
    const state = getState();
    const method = this.model.getMethod(state);
    this.targetTask.run(text, async (signal) => {
      const path = data.paths.heatmap(state.image, method.name, text, null, ".json");
      updateState({ target: String((await data.loadJson(path, signal)).target) });
    });
  }

  /** Show an error message for the target; an empty text hides the message. */
  showTargetError(text = "") {
    if (!text) this.targetTask.stop();
    this.target.ariaInvalid = String(Boolean(text));
    this.targetError.hidden = !text;
    this.targetError.textContent = text && text[0].toUpperCase() + text.slice(1);
  }

  /** @param {State} state */
  draw(state) {
    if (!this.loaded) return;
    const { about, picture, key } = this.loaded;
    const map = this.paintMap(state, this.loaded);
    drawEnlarged(this.canvas, blendMap(picture, map, state.alpha), 672);
    drawEnlarged(this.imageCanvas, picture, 224);
    drawEnlarged(this.mapCanvas, map, 224);
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
   * Draw the heatmap alone, by default in its recommended colormap.
   * @param {State} state
   * @param {Loaded} loaded
   */
  paintMap({ colours }, { about, levels }) {
    const { colormaps } = this.model;
    const recommended = about.cmap in colormaps ? about.cmap : Object.keys(colormaps)[0];
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
    const { about, picture } = this.loaded;
    const name = this.images.getName(state.image).replace(/\.\w+$/, "");
    const blended = blendMap(picture, this.paintMap(state, this.loaded), state.alpha);
    saveCanvas(blended, `${name}-${about.method}.png`);
  }
}

/** @param {string | null} label */
const makeCanvas = (label) => make("canvas", { class: "tile", role: "img", "aria-label": label });

/**
 * @param {string | null} className
 * @param {HTMLCanvasElement} canvas
 * @param {string} caption
 */
const makeFigure = (className, canvas, caption) => make("figure", { class: className }, canvas,
  make("figcaption", { class: "muted" }, caption));
