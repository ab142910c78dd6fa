/** What in the image speaks for a class: a method's map over it. */

import { blended, copyTo } from "./channel.js";
import * as data from "./data.js";
import {
  announce, byId, div, field, make, number, say, saveButton, select, slider, soft, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { painted } from "./levels.js";
import { saveCanvas } from "./save.js";
import { get, go } from "./state.js";

const DEFAULT = "";

export class HeatmapView {
  constructor(model, images) {
    Object.assign(this, { model, images });
    this.task = new data.Task((error) => this.fail(error));
    if (model.methods.length) this.build();
  }

  build() {
    const { model } = this;
    const own = [DEFAULT, "automatic"];
    const named = (names) => names.map((name) => [name, name]);
    this.method = select(named(model.methods.map(({ name }) => name)), (method) => go({ method }));
    this.layer = select([own, ...named(model.mapped.map(({ path }) => path))],
      (path) => go({ over: path === DEFAULT ? null : path }));
    this.cmap = select([own, ...named(Object.keys(model.colormaps))],
      (name) => go({ colours: name === DEFAULT ? null : name }));
    this.alpha = slider((alpha) => go({ alpha }, { step: false }));
    this.layerField = field("Layer", this.layer);
    this.title = make("h2", { role: "status" }, "Heatmap");
    this.about = soft();
    this.source = make("p", { class: "soft source" });
    this.note = make("div", { class: "note", hidden: true });
    const options = div("options", field("Method", this.method), this.buildTarget(),
      this.layerField, field("Colours", this.cmap), field("Map over image", this.alpha));
    byId("heatmap").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      options, this.note, this.buildFigures());
  }

  /** Where a class is typed; only where there are maps of any class. */
  buildTarget() {
    this.target = make("input", {
      type: "search", list: "classes", placeholder: "predicted", autocomplete: "off",
      onchange: () => this.aim(),
    });
    if (!this.model.targets) return null;
    const labels = this.model.classes?.labels ?? [];
    const options = labels.map((label, index) => make("option", { value: `${index} ${label}` }));
    const known = make("datalist", { id: "classes" }, ...options);
    return field("Class", span("joined", this.target, known));
  }

  buildFigures() {
    const figure = (name, caption, label, kind = null) => {
      this[name] = make("canvas", { class: "tile", role: "img", "aria-label": label });
      return make("figure", { class: kind }, this[name],
        make("figcaption", { class: "soft" }, caption));
    };
    this.figures = div("scroller parts",
      div("figures",
        figure("canvas", "Map over the image", null, "large"),
        figure("plain", "Image", "The image as the model sees it"),
        figure("bare", "Map", "The map alone")),
      this.source);
    return this.figures;
  }

  show(state) {
    const hidden = state.tab !== "heatmap" || !this.method;
    byId("heatmap").hidden = hidden;
    if (hidden) {
      this.task.stop();
      return;
    }
    const method = this.model.method(state);
    this.showOptions(state, method);
    if (!state.image) {
      this.say(NO_IMAGES);
      return;
    }
    const target = state.target === "predicted" ? state.target : this.model.target(state.target);
    const layer = method.layer && state.over !== null ? this.model.index.get(state.over) : null;
    const key = [state.image, method.name, target, layer].join("|");
    this.task.run(key, async (signal) => {
      byId("heatmap").classList.add("busy");
      this.title.textContent = "Working…";
      const at = (kind) => data.paths.heatmap(state.image, method.name, target, layer, kind);
      const [about, levels, picture] = await Promise.all([
        data.json(at("json"), signal), data.levels(at("png"), signal),
        data.bitmap(data.paths.picture(state.image), signal),
      ]).finally(() => { if (!signal.aborted) byId("heatmap").classList.remove("busy"); });
      this.loaded = { about, levels, picture, key };
      this.say(null);
      this.draw(get());
    });
    if (this.loaded?.key === key) this.draw(state);
  }

  showOptions(state, method) {
    this.method.value = method.name;
    const end = method.summary.endsWith(".") ? "" : ".";
    this.source.textContent = `${method.summary}${end} ${method.source}`;
    this.layerField.hidden = !(method.layer && this.model.live);
    this.layer.value = state.over ?? DEFAULT;
    this.cmap.value = state.colours ?? DEFAULT;
    this.alpha.value = state.alpha;
    if (document.activeElement !== this.target) {
      const index = state.target === "predicted" ? null : this.model.target(state.target);
      const label = index === null ? "" : this.model.label(index) ?? "";
      this.target.value = index === null ? "" : `${index} ${label}`.trim();
    }
  }

  /** Take what was typed: a class's name or number; nothing for the predicted one. */
  aim() {
    const text = this.target.value.trim();
    const index = text ? this.model.target(text) : null;
    const fine = !text || index !== null;
    this.target.ariaInvalid = String(!fine);
    if (fine) go({ target: index === null ? "predicted" : String(index) });
    else announce(`There is no class ${text}`);
  }

  draw(state) {
    const { about, levels, picture, key } = this.loaded;
    const map = painted(levels, this.model.lut(state.colours ?? this.colormap(about)));
    this.picture = blended(picture, map, state.alpha);
    copyTo(this.canvas, this.picture, 672);
    copyTo(this.plain, picture, 224);
    copyTo(this.bare, map, 224);
    const label = about.label ?? (about.target === null ? "" : `class ${about.target}`);
    const score = about.before_softmax ? "score before softmax" : "score";
    this.title.textContent = label || this.model.method(state).name;
    this.about.textContent = [
      about.target === null ? null : `class ${about.target}`,
      about.score === null ? null : `${score} ${number(about.score)}`,
      about.layer ? `layer ${about.layer}` : null,
      about.signed ? "signed: the middle colour is 0" : null,
    ].filter(Boolean).join(" · ");
    this.canvas.ariaLabel = `${about.method} of ${label} over the image`;
    this.canvas.dataset.shown = key;
  }

  colormap(about) {
    return about.cmap in this.model.colormaps ? about.cmap : Object.keys(this.model.colormaps)[0];
  }

  say(text, retry = false) {
    this.figures.hidden = Boolean(text);
    say(this.note, text, retry);
  }

  fail(error) {
    this.title.textContent = "Heatmap";
    this.about.textContent = "";
    this.loaded = null;
    delete this.canvas.dataset.shown;
    this.say(error.message, true);
    data.lost(error);
  }

  save() {
    if (!this.loaded) return;
    const name = this.images.nameOf(get().image).replace(/\.\w+$/, "");
    saveCanvas(this.picture, `${name}-${this.loaded.about.method}.png`);
  }
}
