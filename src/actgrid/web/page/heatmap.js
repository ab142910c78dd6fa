/** The heatmap view: the attribution map of a target class over the image. */

import { blendMap, drawEnlarged } from "./channel.js";
import * as data from "./data.js";
import {
  announce, button, byId, div, formatNumber, make, mutedLine, optionField, Progress, saveButton,
  select, showNote, slider, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { paintLevels } from "./levels.js";
import { saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

const DEFAULT = "";

export class HeatmapView {
  constructor(model, images) {
    Object.assign(this, { model, images });
    this.task = new data.LatestTask((error) => this.fail(error));
    this.targetTask = new data.LatestTask((error) => this.showTargetError(error.message));
    this.progress = new Progress(() => this.cancel());
    this.cancelled = null; // key of the cancelled heatmap
    if (model.methods.length) this.build();
  }

  build() {
    const { model } = this;
    const controls = model.controls.heatmap;
    const defaultPair = [DEFAULT, "automatic"];
    const makePairs = (names) => names.map((name) => [name, name]);
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
    const options = div("options", optionField("Method", controls.method, this.method),
      this.buildTarget(), this.layerField, optionField("Colormap", controls.cmap, this.cmap),
      optionField("Alpha", controls.alpha, this.alpha));
    byId("heatmap").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      options, this.targetError, this.progress.element, this.note, this.buildFigures());
  }

  /** Create the input for the target class; null if the target cannot be selected. */
  buildTarget() {
    this.targetError = make("p", {
      class: "error wrong", id: "target-error", role: "alert", hidden: true,
    });
    this.target = make("input", {
      type: "search", list: "classes", placeholder: "predicted", autocomplete: "off",
      "aria-describedby": "target-error",
      onchange: () => this.applyTarget(), oninput: () => this.showTargetError(),
    });
    if (!this.model.targets) return null;
    const labels = this.model.classes?.labels ?? [];
    const options = labels.map((label, index) => make("option", { value: `${index} ${label}` }));
    const suggestions = make("datalist", { id: "classes" }, ...options);
    const { target } = this.model.controls.heatmap;
    return optionField("Target", target, span("joined", this.target, suggestions));
  }

  buildFigures() {
    const makeFigure = (name, caption, label, className = null) => {
      this[name] = make("canvas", { class: "tile", role: "img", "aria-label": label });
      return make("figure", { class: className }, this[name],
        make("figcaption", { class: "muted" }, caption));
    };
    this.figures = div("scroller parts",
      div("figures",
        makeFigure("canvas", "Heatmap over the image", null, "large"),
        makeFigure("imageCanvas", "Image", "Model input"),
        makeFigure("mapCanvas", "Heatmap", "Heatmap without the image")),
      this.source);
    return this.figures;
  }

  show(state) {
    const hidden = state.tab !== "heatmap" || !this.method;
    byId("heatmap").hidden = hidden;
    if (hidden) {
      this.task.stop();
      if (this.method) this.hideProgress();
      return;
    }
    const method = this.model.getMethod(state);
    this.showOptions(state, method);
    if (!state.image) {
      this.showNote(NO_IMAGES);
      return;
    }
    const isPredicted = state.target === "predicted";
    const target = isPredicted ? state.target : this.model.findTarget(state.target);
    const layer = method.layer && state.over !== null ? this.model.index.get(state.over) : null;
    const key = [state.image, method.name, target, layer].join("|");
    if (key === this.cancelled) return;
    this.cancelled = null;
    this.task.run(key, async (signal) => {
      byId("heatmap").classList.add("busy");
      this.title.textContent = `Computing ${method.name}…`;
      this.about.textContent = "";
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

  showOptions(state, method) {
    this.method.value = method.name;
    const period = method.summary.endsWith(".") ? "" : ".";
    this.source.textContent = `${method.summary}${period} ${method.source}`;
    this.layerField.hidden = !(method.layer && this.model.is_live);
    this.layer.value = state.over ?? DEFAULT;
    this.cmap.value = state.colours ?? DEFAULT;
    this.alpha.value = state.alpha;
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
    const { image, method } = getState();
    this.targetTask.run(text, async (signal) => {
      const path = data.paths.heatmap(image, method, text, null, ".json");
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

  draw(state) {
    const { about, levels, picture, key } = this.loaded;
    const map = paintLevels(levels, this.model.getLut(state.colours ?? this.chooseColormap(about)));
    this.picture = blendMap(picture, map, state.alpha);
    drawEnlarged(this.canvas, this.picture, 672);
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

  chooseColormap(about) {
    return about.cmap in this.model.colormaps ? about.cmap : Object.keys(this.model.colormaps)[0];
  }

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

  fail(error) {
    this.clear();
    this.showNote(error.message, true);
    data.reportLostConnection(error);
  }

  save() {
    if (!this.loaded) return;
    const name = this.images.getName(getState().image).replace(/\.\w+$/, "");
    saveCanvas(this.picture, `${name}-${this.loaded.about.method}.png`);
  }
}
