/** The comparison view: heatmaps of several methods for one image, in one colour scale. */

import { ColourBar } from "./bar.js";
import { blendMap, drawEnlarged } from "./channel.js";
import * as data from "./data.js";
import {
  announce, button, byId, div, formatNumber, make, makePairs, mutedLine,
  optionField, Progress, saveButton, select, showNote, slider, span,
} from "./dom.js";
import { cutSlice } from "./heatmap.js";
import { NO_IMAGES } from "./images.js";
import { paintLevels } from "./levels.js";
import { createFilledCanvas, drawText, saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";
import { TargetField } from "./target.js";

/** @import { Images } from "./images.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

const SIDE = 320; // pixels of the longer side of a heatmap
const ADD = "";
const SCORES_HELP = "Score each heatmap: how the class changes while its parts are hidden or shown";

/** The heatmap and the scores of one method, which are computed one after the other. */
class MethodFigure {
  /**
   * @param {ComparisonView} view
   * @param {Api.Method} method
   */
  constructor(view, method) {
    this.view = view;
    this.method = method;
    this.key = "";
    /** @type {AbortController | null} */
    this.controller = null;
    this.progress = new Progress(() => this.cancel());
    this.canvas = make("canvas", { class: "tile", role: "img" });
    this.note = make("div", { class: "note", hidden: true });
    this.name = make("b", {}, method.name);
    this.about = span("muted", "");
    this.remove = button("×", {
      class: "quiet", "aria-label": `Remove ${method.name}`, title: `Remove ${method.name}`,
      onclick: () => view.removeMethod(method.name),
    });
    this.element = make("figure", { title: `${method.summary} ${method.source}` },
      make("figcaption", {}, this.name, this.remove),
      this.canvas, this.note, this.progress.element, this.about);
    this.reset("");
  }

  /**
   * Discard the results, and wait for those of a key.
   * @param {string} key
   */
  reset(key) {
    this.controller?.abort();
    this.controller = null;
    this.key = key;
    /** @type {"waiting" | "stopped"} */
    this.state = "waiting";
    /** @type {Api.Heatmap | null} */
    this.heatmap = null;
    /** @type {Levels | null} */
    this.levels = null;
    /** @type {ImageBitmap | null} */
    this.drawing = null;
    /** @type {Api.Score[] | null} */
    this.scores = null;
    this.canvas.hidden = true;
    delete this.canvas.dataset.shown;
    this.about.textContent = "";
    this.note.hidden = true;
    this.progress.show({ state: "waiting", done: 0, total: 0 });
  }

  /**
   * Return whether a result is still to be computed.
   * @param {State} state
   */
  needs(state) {
    const needsScores = this.view.hasScores(state) && !this.scores;
    return this.state === "waiting" && (!this.heatmap || needsScores);
  }

  /**
   * Compute the heatmap, or the scores if the heatmap is known.
   * @param {State} state
   */
  async compute(state) {
    const controller = new AbortController();
    this.controller = controller;
    const { signal } = controller;
    const polling = new AbortController();
    const { image } = state;
    const target = this.view.getTarget(state);
    /** @type {(kind: string) => string} */
    const getPath = (kind) => (this.heatmap
      ? data.paths.scores(image, this.method.name, target, kind)
      : data.paths.heatmap(image, this.method.name, target, null, kind));
    this.progress.show({ state: "running", done: 0, total: 0 });
    if (this.view.model.is_live) {
      data.pollProgress(getPath("/progress.json"), AbortSignal.any([signal, polling.signal]),
        (report) => this.progress.show(report));
    }
    try {
      if (this.heatmap) {
        this.scores = (await data.loadJson(getPath(".json"), signal)).scores;
      } else {
        const isImage = this.view.model.input_kind === "image";
        const [about, levels, drawing] = await Promise.all([
          data.loadJson(getPath(".json"), signal),
          isImage ? data.loadLevels(getPath(".png"), signal) : null,
          isImage ? null : data.loadBitmap(getPath(".png"), signal),
        ]);
        Object.assign(this, { heatmap: about, levels, drawing });
      }
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    } finally {
      polling.abort();
      if (this.controller === controller) this.controller = null;
      if (!signal.aborted) this.progress.show(null);
    }
  }

  /** Cancel the computation, also on the server, until the user starts it again. */
  cancel() {
    this.controller?.abort();
    this.state = "stopped";
    this.progress.show(null);
    showNote(this.note, "The computation was cancelled.");
    this.note.append(button("Compute", { onclick: () => this.restart() }));
    announce(`${this.method.name} cancelled`);
    this.view.computeNext();
  }

  restart() {
    this.state = "waiting";
    this.note.hidden = true;
    this.progress.show({ state: "waiting", done: 0, total: 0 });
    this.view.computeNext();
  }

  /** @param {data.RequestError} error */
  fail(error) {
    this.state = "stopped";
    showNote(this.note, error.message);
    this.note.append(button("Try again", { onclick: () => this.restart() }));
    data.reportLostConnection(error);
  }

  /**
   * Draw the heatmap in the common scale.
   * @param {State} state
   * @param {{isSigned: boolean, lut: Uint32Array}} scale
   * @param {ImageBitmap} picture
   */
  draw(state, scale, picture) {
    const drawn = this.paint(state, scale, picture);
    this.canvas.hidden = !drawn;
    if (!drawn || !this.heatmap) return;
    drawEnlarged(this.canvas, drawn, SIDE);
    this.canvas.ariaLabel = `${this.method.name} heatmap over the image`;
    this.canvas.dataset.shown = this.key;
  }

  /**
   * @param {State} state
   * @param {{isSigned: boolean, lut: Uint32Array}} scale
   * @param {ImageBitmap} picture
   * @returns {HTMLCanvasElement | null}
   */
  paint(state, { isSigned, lut }, picture) {
    if (!this.heatmap) return null;
    if (this.drawing) {
      return cutSlice(this.heatmap, this.drawing, Math.floor((this.heatmap.slices?.count ?? 0) / 2));
    }
    if (!this.levels) return null;
    const levels = isSigned && !this.heatmap.signed ? toSigned(this.levels) : this.levels;
    return blendMap(picture, paintLevels(levels, lut), state.alpha);
  }

  /**
   * Show the scores, and the rank among the shown methods.
   * @param {number | null} rank
   */
  showScores(rank) {
    const { heatmap, scores } = this;
    this.name.textContent = rank === null ? this.method.name : `${rank}. ${this.method.name}`;
    const parts = scores?.map(({ metric, value }) => `${metric} ${formatNumber(value)}`) ?? [];
    if (heatmap?.layer) parts.push(`layer ${heatmap.layer}`);
    if (heatmap?.zero_reason) parts.push(`zero everywhere: ${heatmap.zero_reason}`);
    this.about.textContent = parts.join(" · ");
  }
}

export class ComparisonView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    /** @type {Map<string, MethodFigure>} */
    this.figures = new Map();
    /** @type {MethodFigure | null} */
    this.running = null;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    this.task = new data.LatestTask((error) => showNote(this.note, error.message, true));
    const controls = model.controls.heatmap;
    this.title = make("h2", { role: "status" }, "Comparison");
    this.about = mutedLine();
    this.note = make("div", { class: "note", hidden: true });
    this.target = new TargetField(model, "methods");
    this.add = select([[ADD, "add a method"], ...makePairs(controls.method.choices)],
      (name) => this.addMethod(name));
    /** @type {[string, string]} */
    const automatic = ["", "automatic"];
    this.cmap = select([automatic, ...makePairs(controls.cmap.choices)],
      (name) => updateState({ colours: name || null }));
    this.alpha = slider((alpha) => updateState({ alpha }, { newEntry: false }));
    this.scoresButton = button("Scores", {
      title: SCORES_HELP, "aria-pressed": "true", hidden: !model.is_live,
      onclick: () => updateState({ scores: getState().scores === "on" ? "off" : "on" }),
    });
    this.imageCanvas = make("canvas", { class: "tile", role: "img", "aria-label": "Model input" });
    const isImage = model.input_kind === "image";
    this.imageFigure = make("figure", {},
      make("figcaption", {}, make("b", {}, isImage ? "Image" : "Sample")), this.imageCanvas);
    this.list = div("comparison", this.imageFigure);
    this.bar = new ColourBar();
    const options = div("options", optionField("Methods", controls.method, this.add),
      this.target.element);
    if (isImage) {
      options.append(optionField("Colormap", controls.cmap, this.cmap),
        optionField("Alpha", controls.alpha, this.alpha));
    }
    byId("methods").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        this.scoresButton, saveButton("this view", () => this.save())),
      options, this.target.error, this.note,
      div("scroller", this.bar.element, this.list));
  }

  /** @param {State} state */
  hasScores(state) {
    return this.model.is_live && state.scores === "on";
  }

  /** @param {State} state */
  getTarget(state) {
    return this.model.findTarget(state.target) ?? "predicted";
  }

  /** @param {State} state */
  show(state) {
    const hidden = state.tab !== "methods" || !this.model.methods.length;
    byId("methods").hidden = hidden;
    if (hidden) {
      // Computations of a view that nobody sees end; their results are computed again later.
      for (const figure of this.figures.values()) if (figure.controller) figure.reset(figure.key);
      this.task.stop();
      return;
    }
    this.scoresButton.ariaPressed = String(state.scores === "on");
    this.cmap.value = state.colours ?? "";
    this.alpha.value = String(state.alpha);
    this.add.value = ADD;
    this.target.show(state);
    if (!state.image) {
      showNote(this.note, NO_IMAGES);
      return;
    }
    this.arrangeFigures(state);
    this.task.run(state.image, async (signal) => {
      this.picture = null;
      this.picture = await data.loadBitmap(data.paths.picture(state.image), signal);
      showNote(this.note, null);
      this.draw(getState());
    });
    this.draw(state);
    this.computeNext();
  }

  /**
   * Make a figure for each compared method, and keep those that are there.
   * @param {State} state
   */
  arrangeFigures(state) {
    const methods = this.model.getComparedMethods(state);
    const names = new Set(methods.map(({ name }) => name));
    for (const [name, figure] of this.figures) {
      if (names.has(name)) continue;
      figure.reset("");
      figure.element.remove();
      this.figures.delete(name);
    }
    for (const method of methods) {
      const figure = this.figures.get(method.name) ?? new MethodFigure(this, method);
      this.figures.set(method.name, figure);
      const key = [state.image, method.name, this.getTarget(state)].join("|");
      if (figure.key !== key) figure.reset(key);
      else if (!figure.needs(state) && !figure.controller) figure.progress.show(null);
      this.list.append(figure.element); // also puts the figures into the order of the methods
    }
  }

  /** Compute the next result: one at a time, and all heatmaps before the scores. */
  async computeNext() {
    const state = getState();
    if (this.running || byId("methods").hidden || !state.image) return;
    const waiting = [...this.figures.values()].filter((figure) => figure.needs(state));
    const next = waiting.find((figure) => !figure.heatmap) ?? waiting[0];
    if (!next) return;
    this.running = next;
    try {
      await next.compute(state);
    } finally {
      this.running = null;
    }
    this.draw(getState());
    this.computeNext();
  }

  /** @param {State} state */
  draw(state) {
    const figures = [...this.figures.values()];
    const heatmaps = figures.flatMap(({ heatmap }) => heatmap ?? []);
    const scale = this.chooseScale(state, heatmaps);
    this.drawScale(scale, heatmaps.length > 0);
    if (this.picture) {
      drawEnlarged(this.imageCanvas, this.picture, SIDE);
      for (const figure of figures) figure.draw(state, scale, this.picture);
    }
    const ranks = this.hasScores(state) ? rankFigures(figures) : null;
    figures.forEach((figure, index) => figure.showScores(ranks ? ranks[index] : null));
    const [first] = heatmaps;
    const label = first?.label ?? (first && first.target !== null ? `class ${first.target}` : "");
    this.title.textContent = label || "Comparison";
    const score = first?.is_logit ? "logit" : "score";
    this.about.textContent = first && first.score !== null
      ? `${score} ${formatNumber(first.score)}` : "";
  }

  /**
   * Return the colours of all heatmaps. If one has negative values, zero is the middle colour.
   * @param {State} state
   * @param {Api.Heatmap[]} heatmaps
   */
  chooseScale({ colours }, heatmaps) {
    const isSigned = heatmaps.some(({ signed }) => signed);
    const recommended = heatmaps.find(({ signed }) => signed === isSigned)?.cmap ?? "";
    const { colormaps } = this.model;
    const name = recommended in colormaps ? recommended : Object.keys(colormaps)[0];
    return { isSigned, lut: this.model.getLut(colours ?? name) };
  }

  /**
   * @param {{isSigned: boolean, lut: Uint32Array}} scale
   * @param {boolean} isKnown
   */
  drawScale({ isSigned, lut }, isKnown) {
    this.bar.element.hidden = !isKnown || this.model.input_kind !== "image";
    this.bar.show(lut, isSigned ? "against the class" : "smallest", "largest of each map");
  }

  /** @param {string} name */
  addMethod(name) {
    const names = this.model.getComparedMethods(getState()).map((method) => method.name);
    if (name !== ADD && !names.includes(name)) updateState({ methods: [...names, name].join(",") });
    this.add.value = ADD;
  }

  /** @param {string} name */
  removeMethod(name) {
    const names = this.model.getComparedMethods(getState()).map((method) => method.name);
    const others = names.filter((other) => other !== name);
    if (others.length) updateState({ methods: others.join(",") });
  }

  save() {
    const state = getState();
    const figures = [...this.figures.values()].filter(({ heatmap }) => heatmap);
    if (!this.picture || !figures.length) return;
    const [gap, line] = [8, 18];
    const canvases = [this.imageCanvas, ...figures.map(({ canvas }) => canvas)];
    const texts = [["image"], ...figures.map(({ name, about }) =>
      [name.textContent ?? "", about.textContent ?? ""])];
    const width = canvases.reduce((sum, canvas) => sum + canvas.width, gap * (canvases.length - 1));
    const height = Math.max(...canvases.map((canvas) => canvas.height)) + 2 * line;
    const { canvas, context } = createFilledCanvas(width, height, "#fff");
    context.fillStyle = "#000";
    context.font = "13px sans-serif";
    let left = 0;
    canvases.forEach((source, index) => {
      drawText(context, texts[index][0], left, line - 5, source.width);
      context.drawImage(source, left, line);
      drawText(context, texts[index][1] ?? "", left, line + source.height + 14, source.width);
      left += source.width + gap;
    });
    const name = this.images.getName(state.image).replace(/\.\w+$/, "");
    saveCanvas(canvas, `${name}-comparison.png`);
  }
}

/**
 * Return the levels of an unsigned map in the upper half of a scale with zero in the middle.
 * @param {Levels} levels
 * @returns {Levels}
 */
const toSigned = ({ width, height, data: bytes }) =>
  ({ width, height, data: bytes.map((level) => 128 + (level >> 1)) });

/**
 * Return the rank of each figure by the mean rank of its scores, 1 for the best; null until all are
 * known.
 * @param {MethodFigure[]} figures
 */
function rankFigures(figures) {
  const scores = figures.map((figure) => figure.scores);
  if (figures.length < 2 || scores.includes(null)) return null;
  const rows = /** @type {Api.Score[][]} */ (scores);
  const sums = rows.map(() => 0);
  rows[0].forEach(({ better }, metric) => {
    const costs = rows.map((row) => {
      const value = row[metric].value;
      return value === null ? Infinity : value * (better === "higher" ? -1 : 1);
    });
    costs.forEach((cost, index) => {
      const equal = costs.filter((other) => other === cost).length;
      sums[index] += costs.filter((other) => other < cost).length + (equal + 1) / 2;
    });
  });
  return sums.map((sum, index) =>
    1 + sums.filter((other, place) => other < sum || (other === sum && place < index)).length);
}
