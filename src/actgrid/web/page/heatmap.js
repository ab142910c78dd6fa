/** What in the image speaks for a class: a method's map over it. */

import { blended, copyTo } from "./channel.js";
import * as data from "./data.js";
import {
  announce, button, byId, div, make, number, optionField, Progress, say, saveButton, select, slider,
  soft, span,
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
    this.naming = new data.Task((error) => this.sayNoClass(error.message));
    this.progress = new Progress(() => this.cancel());
    this.cancelled = null; // key of the heatmap that the user cancelled
    if (model.methods.length) this.build();
  }

  build() {
    const { model } = this;
    const controls = model.controls.heatmap;
    const own = [DEFAULT, "automatic"];
    const named = (names) => names.map((name) => [name, name]);
    this.method = select(named(controls.method.words), (method) => go({ method }));
    this.layer = select([own, ...named(model.mapped.map(({ path }) => path))],
      (path) => go({ over: path === DEFAULT ? null : path }));
    this.cmap = select([own, ...named(controls.cmap.words)],
      (name) => go({ colours: name === DEFAULT ? null : name }));
    this.alpha = slider((alpha) => go({ alpha }, { step: false }));
    this.layerField = optionField("Layer", controls.layer, this.layer);
    this.title = make("h2", { role: "status" }, "Heatmap");
    this.about = soft();
    this.source = make("p", { class: "soft source" });
    this.note = make("div", { class: "note", hidden: true });
    const options = div("options", optionField("Method", controls.method, this.method),
      this.buildTarget(), this.layerField, optionField("Colours", controls.cmap, this.cmap),
      optionField("Map over image", controls.alpha, this.alpha));
    byId("heatmap").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      options, this.noClass, this.progress.element, this.note, this.buildFigures());
  }

  /** Where a class is typed; only where there are maps of any class. */
  buildTarget() {
    this.noClass = make("p", { class: "error wrong", id: "no-class", role: "alert", hidden: true });
    this.target = make("input", {
      type: "search", list: "classes", placeholder: "predicted", autocomplete: "off",
      "aria-describedby": "no-class", onchange: () => this.aim(), oninput: () => this.sayNoClass(),
    });
    if (!this.model.targets) return null;
    const labels = this.model.classes?.labels ?? [];
    const options = labels.map((label, index) => make("option", { value: `${index} ${label}` }));
    const known = make("datalist", { id: "classes" }, ...options);
    const { target } = this.model.controls.heatmap;
    return optionField("Class", target, span("joined", this.target, known));
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
      if (this.method) this.rest();
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
    if (key === this.cancelled) return;
    this.cancelled = null;
    this.task.run(key, async (signal) => {
      byId("heatmap").classList.add("busy");
      this.title.textContent = `Computing ${method.name}…`;
      this.about.textContent = "";
      const at = (kind) => data.paths.heatmap(state.image, method.name, target, layer, kind);
      const done = new AbortController();
      this.progress.show(null);
      if (this.model.live) {
        data.follow(at("/progress.json"), AbortSignal.any([signal, done.signal]),
          (progress) => this.progress.show(progress));
      }
      const [about, levels, picture] = await Promise.all([
        data.json(at(".json"), signal), data.levels(at(".png"), signal),
        data.bitmap(data.paths.picture(state.image), signal),
      ]).finally(() => {
        done.abort();
        if (!signal.aborted) this.rest();
      });
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

  /** Show that nothing is being computed. */
  rest() {
    byId("heatmap").classList.remove("busy");
    this.progress.show(null);
  }

  /** Stop the computation, on the server too, until the user wants it again. */
  cancel() {
    this.cancelled = this.task.key;
    this.task.stop();
    this.rest();
    this.clear();
    const again = () => {
      this.cancelled = null;
      this.show(get());
    };
    this.say("The computation was cancelled.");
    this.note.append(button("Compute", { onclick: again }));
    announce("Cancelled");
  }

  /** Take what was typed: a class's name or number; nothing for the predicted one. */
  aim() {
    const text = this.target.value.trim();
    const index = text ? this.model.target(text) : null;
    this.sayNoClass();
    if (!text || index !== null) {
      go({ target: index === null ? "predicted" : String(index) });
      return;
    }
    // The server says what is wrong with the name, and which names are close to it.
    const { image, method } = get();
    this.naming.run(text, async (signal) => {
      const at = data.paths.heatmap(image, method, text, null, ".json");
      go({ target: String((await data.json(at, signal)).target) });
    });
  }

  /** Say what is wrong with the class; nothing if it is fine. */
  sayNoClass(text = "") {
    if (!text) this.naming.stop();
    this.target.ariaInvalid = String(Boolean(text));
    this.noClass.hidden = !text;
    this.noClass.textContent = text && text[0].toUpperCase() + text.slice(1);
  }

  draw(state) {
    const { about, levels, picture, key } = this.loaded;
    const map = painted(levels, this.model.lut(state.colours ?? this.colormap(about)));
    this.picture = blended(picture, map, state.alpha);
    copyTo(this.canvas, this.picture, 672);
    copyTo(this.plain, picture, 224);
    copyTo(this.bare, map, 224);
    const label = about.label ?? (about.target === null ? "" : `class ${about.target}`);
    const score = about.is_logit ? "logit" : "score";
    this.title.textContent = label || this.model.method(state).name;
    this.about.textContent = [
      about.target === null ? null : `class ${about.target}`,
      about.score === null ? null : `${score} ${number(about.score)}`,
      about.layer ? `layer ${about.layer}` : null,
      about.signed ? "signed: the middle colour is 0" : null,
      about.zero_reason ? `zero everywhere: ${about.zero_reason}` : null,
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

  clear() {
    this.title.textContent = "Heatmap";
    this.about.textContent = "";
    this.loaded = null;
    delete this.canvas.dataset.shown;
  }

  fail(error) {
    this.clear();
    this.say(error.message, true);
    data.lost(error);
  }

  save() {
    if (!this.loaded) return;
    const name = this.images.nameOf(get().image).replace(/\.\w+$/, "");
    saveCanvas(this.picture, `${name}-${this.loaded.about.method}.png`);
  }
}
