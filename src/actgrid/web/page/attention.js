/** The heads view: what each query of a layer attends to, in each head or on average. */

import { drawEnlarged } from "./channel.js";
import * as data from "./data.js";
import {
  announce, ARROW_DIRECTIONS, button, byId, definitionList, div, formatCount, formatNumber,
  getContext, hasModifier, make, makePairs, makeSvg, mutedLine, optionField, saveButton, select,
  showNote, slider, span,
} from "./dom.js";
import { NO_IMAGES } from "./images.js";
import { paintLevels } from "./levels.js";
import { saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

/** @import { Images } from "./images.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Loaded The attention of a layer for an image.
 * @property {Api.Attention} about
 * @property {Uint8Array} levels
 * @property {ImageBitmap | null} picture The image, if queries or keys are patches of it.
 * @property {string} key
 * @property {number} max Largest weight of the layer.
 * @property {Float32Array} mean Mean of all heads.
 */

/** @typedef {{query: number | null, key: number | null, element: HTMLElement}} TokenElement */

const PICTURE_SIDE = 448; // pixels of the longer side of the image, at most
const MAX_ARC_TOKENS = 64;
const MIN_ARC_FRACTION = 0.05; // of the largest weight: smaller weights have no arc
const MAX_ARC_HEIGHT = 130; // pixels
const MIN_LINED_PATCH = 12; // pixels of the side of a patch
const LISTED_KEYS = 6;
const HELP = "Arrow keys select a patch, whose attention is shown over the image.";

export class AttentionView {
  /**
   * @param {Model} model
   * @param {Images} images
   */
  constructor(model, images) {
    this.model = model;
    this.images = images;
    this.task = new data.LatestTask((error) => this.fail(error));
    /** @type {Loaded | null} */
    this.loaded = null;
    /** @type {number | null} */
    this.hovered = null; // query under the pointer or the keyboard focus
    /** @type {string | null} */
    this.headsKey = null; // matrices that are drawn
    /** @type {string | null} */
    this.arcsKey = null; // arcs that are drawn
    /** @type {TokenElement[]} */
    this.tokens = [];
    this.title = make("h2", {}, "Attention");
    this.about = mutedLine();
    const { layer, heatmap } = model.controls;
    this.cmap = select(makePairs(layer.cmap.choices), (cmap) => updateState({ cmap }));
    this.alpha = slider((alpha) => updateState({ alpha }, { newEntry: false }));
    this.alphaField = optionField("Alpha", heatmap.alpha, this.alpha);
    this.note = make("div", { class: "note", hidden: true });
    this.headList = make("div", { class: "head-list", role: "group", "aria-label": "Heads" });
    this.headCaption = make("p", { class: "muted" });
    this.canvas = make("canvas", { class: "patches", "aria-label": "Attention over the image" });
    this.listenToCanvas();
    this.otherTokens = div("tokens-field");
    this.reading = make("p", { class: "reading" });
    this.largest = div("largest");
    this.content = div("scroller attention",
      div("part", this.headList, this.headCaption),
      div("part", this.reading, this.canvas, this.otherTokens, this.largest));
    byId("heads").append(
      make("header", { class: "heading" }, div(null, this.title, this.about),
        saveButton("this view", () => this.save())),
      div("options", optionField("Colormap", layer.cmap, this.cmap), this.alphaField),
      this.note, this.content);
  }

  listenToCanvas() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") this.hover(this.findPatch(event));
    });
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("click", (event) => this.choose(this.findPatch(event)));
    canvas.addEventListener("keydown", (event) => this.moveToPatch(event));
  }

  /** @param {State} state */
  show(state) {
    const attention = this.model.getAttention(state);
    const hidden = state.tab !== "heads" || !attention;
    byId("heads").hidden = hidden;
    if (hidden) {
      this.task.stop();
      return;
    }
    this.cmap.value = state.cmap;
    this.alpha.value = String(state.alpha);
    if (!state.image) {
      this.clear();
      this.showNote(NO_IMAGES);
      return;
    }
    const { image } = state;
    const { layer } = attention;
    const key = [attention.path, image].join("|");
    if (this.loaded?.key === key) this.draw(state);
    this.task.run(key, async (signal) => {
      if (this.loaded?.key === key) return;
      byId("heads").classList.add("busy");
      try {
        const [about, levels] = await Promise.all([
          data.loadJson(data.paths.attention(image, layer, "json"), signal),
          data.loadBytes(data.paths.attention(image, layer, "bin"), signal),
        ]);
        const hasPatches = this.model.input_kind === "image"
          && (about.query_grid || about.key_grid);
        const picture = hasPatches
          ? await data.loadBitmap(data.paths.picture(image), signal) : null;
        this.load(about, levels, picture, key);
      } finally {
        if (!signal.aborted) byId("heads").classList.remove("busy");
      }
    });
  }

  /**
   * @param {Api.Attention} about
   * @param {Uint8Array} levels
   * @param {ImageBitmap | null} picture
   * @param {string} key
   */
  load(about, levels, picture, key) {
    const mean = new Float32Array(about.queries.length * about.keys.length);
    for (let head = 0; head < about.heads; head += 1) {
      const weights = decodeHead(about, levels, head);
      for (let index = 0; index < mean.length; index += 1) {
        mean[index] += weights[index] / about.heads;
      }
    }
    const max = Math.max(...about.maxima.map((row) => row.reduce((a, b) => Math.max(a, b), 0)));
    this.loaded = { about, levels, picture, key, max, mean };
    this.hovered = this.headsKey = this.arcsKey = null;
    this.showNote(null);
    this.buildHeads();
    this.buildTokens();
    this.draw(getState());
  }

  /**
   * Return the head of a state, which may be of another layer; null for the mean of all heads.
   * @param {State} state
   */
  getHead({ head }) {
    return head !== null && this.loaded && head < this.loaded.about.heads ? head : null;
  }

  /**
   * Return the query whose attention is shown.
   * @param {State} state
   */
  getQuery({ query }) {
    if (!this.loaded) return 0;
    const { queries, query_grid: grid } = this.loaded.about;
    if (this.hovered !== null) return this.hovered;
    if (query !== null && queries[query]) return query;
    if (!grid || grid.leading) return Math.max(0, queries.findIndex((name) => name));
    return Math.floor(grid.height / 2) * grid.width + Math.floor(grid.width / 2);
  }

  /**
   * Return the attention weights of a head, (queries, keys) in rows; null: of the mean.
   * @param {Loaded} loaded
   * @param {number | null} head
   */
  getWeights({ about, levels, mean }, head) {
    return head === null ? mean : decodeHead(about, levels, head);
  }

  /**
   * Return the weights of the shown query for all keys.
   * @param {State} state
   */
  getRow(state) {
    if (!this.loaded) return new Float32Array();
    const { about, levels, mean } = this.loaded;
    const [head, query, count] = [this.getHead(state), this.getQuery(state), about.keys.length];
    return head === null
      ? mean.slice(query * count, (query + 1) * count) : decodeRow(about, levels, head, query);
  }

  /** The shown attention, for scripts outside of the page. */
  get shown() {
    if (!this.loaded || byId("heads").hidden) return null;
    const state = getState();
    return {
      path: this.loaded.about.path,
      head: this.getHead(state),
      query: this.getQuery(state),
      weights: [...this.getRow(state)],
    };
  }

  /* Heads */

  /** Create a button with a small matrix for the mean and each head. */
  buildHeads() {
    if (!this.loaded) return;
    const { heads } = this.loaded.about;
    /** @type {(head: number | null, text: string) => HTMLElement} */
    const makeButton = (head, text) => {
      const canvas = make("canvas", {});
      return button("", { class: "head", onclick: () => updateState({ head }) },
        canvas, span(null, text));
    };
    this.headList.replaceChildren(
      makeButton(null, "mean"),
      ...Array.from({ length: heads }, (_, head) => makeButton(head, `head ${head}`)),
    );
  }

  /** @param {State} state */
  drawHeads(state) {
    if (!this.loaded) return;
    const chosen = this.getHead(state);
    const buttons = [...this.headList.children];
    for (const [position, element] of buttons.entries()) {
      element.ariaPressed = String(chosen === (position ? position - 1 : null));
    }
    const key = [this.loaded.key, state.cmap].join("|");
    if (this.headsKey === key) return;
    this.headsKey = key;
    for (const [position, element] of buttons.entries()) {
      const canvas = element.querySelector("canvas");
      if (canvas) this.drawMatrix(canvas, this.loaded, position ? position - 1 : null, state.cmap);
    }
    const { about, max } = this.loaded;
    const hasPadding = [...about.queries, ...about.keys].includes("");
    this.headCaption.textContent = "Rows: queries. Columns: keys. Colours: 0 to "
      + `${formatNumber(max)}, the largest weight of the layer.`
      + (hasPadding ? " Padding is left out." : "");
  }

  /**
   * Draw the matrix of a head, a pixel for each weight, without padding.
   * @param {HTMLCanvasElement} canvas
   * @param {Loaded} loaded
   * @param {number | null} head
   * @param {string} cmap
   */
  drawMatrix(canvas, loaded, head, cmap) {
    const { about, max } = loaded;
    const weights = this.getWeights(loaded, head);
    const [rows, columns] = [listNamed(about.queries), listNamed(about.keys)];
    const values = new Float32Array(rows.length * columns.length);
    let index = 0;
    for (const row of rows) {
      for (const column of columns) {
        values[index] = weights[row * about.keys.length + column];
        index += 1;
      }
    }
    const levels = makeLevels(values, columns.length, max);
    drawEnlarged(canvas, paintLevels(levels, this.model.getLut(cmap)), 1);
    canvas.classList.toggle("coarse", Math.max(rows.length, columns.length) < 96);
  }

  /* Queries */

  /** Create elements for all tokens that are not patches of the image. */
  buildTokens() {
    if (!this.loaded) return;
    const { about, picture } = this.loaded;
    const { queries, keys } = about;
    const queryGrid = picture ? about.query_grid : null;
    const keyGrid = picture ? about.key_grid : null;
    this.canvas.hidden = !picture;
    this.content.classList.toggle("stacked", !picture);
    this.alphaField.hidden = !picture;
    this.canvas.tabIndex = queryGrid ? 0 : -1;
    this.canvas.setAttribute("role", queryGrid ? "application" : "img");
    this.canvas.classList.toggle("fixed", !queryGrid);
    const otherQueries = listNamed(queries).filter((index) => !isPatch(index, queryGrid));
    const otherKeys = listNamed(keys).filter((index) => !isPatch(index, keyGrid));
    const isSame = otherQueries.length === otherKeys.length
      && otherQueries.every((index, position) =>
        index === otherKeys[position] && queries[index] === keys[index]);
    this.arcs = makeSvg("svg", { class: "arcs", "aria-hidden": "true" });
    const hasArcs = !picture && isSame && otherQueries.length <= MAX_ARC_TOKENS;
    /** @type {(query: number | null, key: number | null) => TokenElement} */
    const makeToken = (query, key) => ({ query, key, element: this.makeToken(query, key) });
    /** @type {(label: string, tokens: TokenElement[]) => HTMLElement | null} */
    const makeLine = (label, tokens) => (tokens.length ? make("div", {
      class: hasArcs ? "token-line single" : "token-line", role: "group", "aria-label": label,
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.moveToToken(event, tokens),
    }, ...(isSame && !picture ? [] : [span("muted", `${label}:`)]),
    ...tokens.map(({ element }) => element)) : null);
    const merged = isSame ? otherQueries.map((index) => makeToken(index, index)) : [];
    const separateQueries = isSame ? [] : otherQueries.map((index) => makeToken(index, null));
    const separateKeys = isSame ? [] : otherKeys.map((index) => makeToken(null, index));
    this.tokens = [...merged, ...separateQueries, ...separateKeys];
    const lines = [
      makeLine(picture ? "Other tokens" : "Tokens", merged),
      makeLine("Queries", separateQueries), makeLine("Keys", separateKeys),
    ];
    const field = hasArcs ? div("arc-field", this.arcs, lines[0]) : div(null, ...lines);
    this.hasArcs = hasArcs;
    this.otherTokens.replaceChildren(field);
  }

  /**
   * @param {number | null} query
   * @param {number | null} key
   */
  makeToken(query, key) {
    const about = this.loaded?.about;
    if (query === null) return span("attended", about?.keys[key ?? 0]);
    const show = () => this.hover(query);
    const leave = () => this.hover(null);
    return button(about?.queries[query] ?? "", {
      class: "attended",
      onclick: () => this.choose(query),
      onpointerenter: (/** @type {PointerEvent} */ event) => {
        if (event.pointerType !== "touch") show();
      },
      onpointerleave: leave,
      onfocus: show,
      onblur: leave,
    });
  }

  /**
   * Show the attention of a query until the pointer or the focus leaves it; null: of the selected.
   * @param {number | null} query
   */
  hover(query) {
    if (query === this.hovered) return;
    this.hovered = query;
    this.drawQuery(getState());
  }

  /**
   * Select a query, also for the address.
   * @param {number | null} query
   */
  choose(query, newEntry = true) {
    if (query === null) return;
    this.hovered = null;
    updateState({ query }, { newEntry });
    this.drawQuery(getState());
  }

  /**
   * Return the query of the patch under the pointer; null if the queries are no patches.
   * @param {MouseEvent} event
   */
  findPatch(event) {
    const grid = this.loaded?.about.query_grid;
    if (!grid) return null;
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - left) / width) * grid.width);
    const row = Math.floor(((event.clientY - top) / height) * grid.height);
    const isInside = column >= 0 && row >= 0 && column < grid.width && row < grid.height;
    return isInside ? grid.leading + row * grid.width + column : null;
  }

  /** @param {KeyboardEvent} event */
  moveToPatch(event) {
    const grid = this.loaded?.about.query_grid;
    const arrow = ARROW_DIRECTIONS[event.key];
    if (!grid || hasModifier(event) || !arrow) return;
    event.preventDefault();
    event.stopPropagation();
    const patch = this.getQuery(getState()) - grid.leading;
    const count = grid.width * grid.height;
    let next = 0; // the first patch, if another token is the query
    if (patch >= 0 && patch < count) {
      const [column, row] = [patch % grid.width + arrow[0], Math.floor(patch / grid.width) + arrow[1]];
      if (column < 0 || row < 0 || column >= grid.width || row >= grid.height) return;
      next = row * grid.width + column;
    }
    this.choose(grid.leading + next, false);
    announce(this.reading.textContent ?? "");
  }

  /**
   * Move the focus to the next token of a line.
   * @param {KeyboardEvent} event
   * @param {TokenElement[]} tokens
   */
  moveToToken(event, tokens) {
    const step = ARROW_DIRECTIONS[event.key]?.[0];
    if (!step || hasModifier(event)) return;
    event.preventDefault();
    const position = tokens.findIndex(({ element }) => element === document.activeElement);
    const next = tokens[position + step];
    if (position < 0 || !next) return;
    next.element.focus();
    announce(this.reading.textContent ?? "");
  }

  /* Drawing */

  /** @param {State} state */
  draw(state) {
    if (!this.loaded) return;
    const { about, key } = this.loaded;
    const head = this.getHead(state);
    this.title.textContent = about.path;
    this.about.textContent = [
      head === null ? `mean of ${formatCount(about.heads, "head")}` : `head ${head} of ${about.heads}`,
      `queries × keys: ${listNamed(about.queries).length} × ${listNamed(about.keys).length}`,
    ].join(" · ");
    this.drawHeads(state);
    this.drawArcs(state);
    this.drawQuery(state);
    this.content.dataset.shown = [key, head ?? "mean"].join("|");
  }

  /**
   * Draw where the current query attends.
   * @param {State} state
   */
  drawQuery(state) {
    if (!this.loaded) return;
    const { about, picture } = this.loaded;
    const query = this.getQuery(state);
    const row = this.getRow(state);
    const { key_grid: grid } = about;
    const patches = picture && grid
      ? row.slice(grid.leading, grid.leading + grid.width * grid.height) : row;
    const max = patches.reduce((largest, weight, index) =>
      (patches !== row || about.keys[index] ? Math.max(largest, weight) : largest), 0);
    this.describeQuery(query, row, max);
    if (picture) this.drawPatches(state, picture, query, patches, max);
    this.colourTokens(state, query, row, max);
    for (const path of this.arcs?.children ?? []) {
      path.classList.toggle("near", path.getAttribute("data-query") === String(query));
    }
  }

  /**
   * Write the name of the query, and the keys that it attends to most.
   * @param {number} query
   * @param {Float32Array} row
   * @param {number} max
   */
  describeQuery(query, row, max) {
    if (!this.loaded) return;
    const { queries, keys, key_grid: grid } = this.loaded.about;
    const name = queries[query];
    const parts = [`Attention from ${name}`];
    for (const index of listNamed(keys)) {
      // Class and register tokens, which are beside the image.
      if (grid && !isPatch(index, grid) && keys.length - grid.width * grid.height <= 8) {
        parts.push(`to ${keys[index]}: ${formatNumber(row[index])}`);
      }
    }
    if (keys.includes("")) {
      const padding = row.filter((_, index) => !keys[index]).reduce((a, b) => a + b, 0);
      parts.push(`to padding: ${formatNumber(padding)}`);
    }
    parts.push(`colours: 0 to ${formatNumber(max)}`);
    this.reading.replaceChildren(make("b", {}, parts[0]), ` · ${parts.slice(1).join(" · ")}`);
    const best = listNamed(keys).sort((a, b) => row[b] - row[a]).slice(0, LISTED_KEYS);
    this.largest.replaceChildren(make("h4", {}, "Largest weights"),
      definitionList(best.map((index) => [keys[index], formatNumber(row[index])])));
  }

  /**
   * Draw the image with the weights of its patches, and mark the patch of the query.
   * @param {State} state
   * @param {ImageBitmap} picture
   * @param {number} query
   * @param {Float32Array} patches
   * @param {number} max
   */
  drawPatches(state, picture, query, patches, max) {
    if (!this.loaded) return;
    const { query_grid: queryGrid, key_grid: keyGrid, queries } = this.loaded.about;
    const { canvas } = this;
    drawEnlarged(canvas, picture, PICTURE_SIDE);
    const context = getContext(canvas);
    const { width, height } = canvas;
    if (keyGrid) {
      const map = paintLevels(makeLevels(patches, keyGrid.width, max), this.model.getLut(state.cmap));
      context.globalAlpha = state.alpha;
      context.imageSmoothingEnabled = false;
      context.drawImage(map, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    const grid = queryGrid ?? keyGrid;
    if (grid) drawLines(context, grid);
    if (queryGrid && isPatch(query, queryGrid)) {
      const patch = query - queryGrid.leading;
      const [w, h] = [width / queryGrid.width, height / queryGrid.height];
      const [x, y] = [(patch % queryGrid.width) * w, Math.floor(patch / queryGrid.width) * h];
      const line = Math.max(2, Math.min(w, h) / 16);
      for (const [colour, size] of /** @type {const} */ ([["#000c", 2 * line], ["#fff", line]])) {
        context.strokeStyle = colour;
        context.lineWidth = size;
        context.strokeRect(x + line, y + line, w - 2 * line, h - 2 * line);
      }
    }
    const name = this.images.getName(state.image);
    canvas.ariaLabel = `Attention from ${queries[query]} over ${name}. ${queryGrid ? HELP : ""}`;
  }

  /**
   * Colour tokens by their weights, and mark the token of the query.
   * @param {State} state
   * @param {number} query
   * @param {Float32Array} row
   * @param {number} max
   */
  colourTokens(state, query, row, max) {
    const lut = new Uint8Array(this.model.getLut(state.cmap).buffer);
    const selected = this.tokens.find((token) => token.query === query)
      ?? this.tokens.find((token) => token.query !== null);
    for (const token of this.tokens) {
      const { element, key } = token;
      const isCurrent = token.query === query;
      element.classList.toggle("current", isCurrent);
      if (token.query !== null) {
        element.ariaCurrent = isCurrent ? "true" : null;
        element.tabIndex = token === selected ? 0 : -1;
      }
      if (key === null) continue;
      const start = 4 * toLevel(row[key], max);
      const [red, green, blue] = lut.subarray(start, start + 3);
      element.style.background = `rgb(${red} ${green} ${blue})`;
      element.style.color = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
      element.title = formatNumber(row[key]);
    }
  }

  /**
   * Draw an arc for each weight of the head between two tokens of a short text.
   * @param {State} state
   */
  drawArcs(state) {
    if (!this.loaded || !this.arcs) return;
    const key = [this.loaded.key, this.getHead(state)].join("|");
    if (!this.hasArcs || this.arcsKey === key) return;
    this.arcsKey = key;
    const weights = this.getWeights(this.loaded, this.getHead(state));
    const count = this.loaded.about.keys.length;
    const centres = this.tokens.map(({ element }) => element.offsetLeft + element.offsetWidth / 2);
    const arcs = this.tokens.flatMap(({ query }, from) => this.tokens.flatMap(({ key: to }, at) =>
      (query === null || to === null || query === to ? [] : [{
        query, weight: weights[query * count + to], start: centres[from], end: centres[at],
      }])));
    const max = arcs.reduce((largest, { weight }) => Math.max(largest, weight), 0);
    /** @type {(start: number, end: number) => number} */
    const getHeight = (start, end) => Math.min(Math.abs(end - start) / 2 + 8, MAX_ARC_HEIGHT);
    const drawn = arcs.filter(({ weight }) => weight > 0 && weight >= MIN_ARC_FRACTION * max);
    const height = drawn.reduce(
      (largest, { start, end }) => Math.max(largest, getHeight(start, end)), 0,
    ) * 0.75 + 4; // the top of the curve is at three quarters of its control points
    const last = this.tokens.at(-1)?.element;
    this.arcs.setAttribute("width", String(last ? last.offsetLeft + last.offsetWidth : 0));
    this.arcs.setAttribute("height", String(height));
    this.arcs.replaceChildren(...drawn.map(({ query, weight, start, end }) => {
      const top = height - getHeight(start, end);
      return makeSvg("path", {
        d: `M${start} ${height}C${start} ${top} ${end} ${top} ${end} ${height}`,
        "data-query": query,
        "stroke-width": (0.75 + 3 * (weight / max)).toFixed(2),
        opacity: (0.3 + 0.7 * (weight / max)).toFixed(2),
      });
    }));
  }

  /** @param {string | null} text */
  showNote(text, canRetry = false) {
    this.content.hidden = Boolean(text);
    showNote(this.note, text, canRetry);
  }

  clear() {
    this.title.textContent = "Attention";
    this.about.textContent = "";
    this.loaded = null;
    delete this.content.dataset.shown;
  }

  /** @param {data.RequestError} error */
  fail(error) {
    this.clear();
    this.showNote(error.message, true);
    announce(error.message);
    data.reportLostConnection(error);
  }

  save() {
    if (!this.loaded) return;
    const state = getState();
    const head = this.getHead(state);
    const name = `${this.loaded.about.path.replaceAll("/", "-")}-${head ?? "mean"}.png`;
    if (this.loaded.picture) {
      saveCanvas(this.canvas, name);
      return;
    }
    const canvas = make("canvas", {});
    this.drawMatrix(canvas, this.loaded, head, state.cmap);
    saveCanvas(canvas, name);
  }
}

/**
 * Return the attention weights of a query in one head.
 * @param {Api.Attention} about
 * @param {Uint8Array} levels
 * @param {number} head
 * @param {number} query
 */
function decodeRow({ queries, keys, maxima }, levels, head, query) {
  const start = (head * queries.length + query) * keys.length;
  const scale = maxima[head][query] / 255;
  return Float32Array.from(levels.subarray(start, start + keys.length), (level) => level * scale);
}

/**
 * Return the attention weights of a head, (queries, keys) in rows.
 * @param {Api.Attention} about
 * @param {Uint8Array} levels
 * @param {number} head
 */
function decodeHead({ queries, keys, maxima }, levels, head) {
  const size = queries.length * keys.length;
  const weights = new Float32Array(size);
  for (let query = 0, index = 0; query < queries.length; query += 1) {
    const scale = maxima[head][query] / 255;
    for (const end = index + keys.length; index < end; index += 1) {
      weights[index] = levels[head * size + index] * scale;
    }
  }
  return weights;
}

/**
 * Draw thin lines between the patches of a grid, unless the patches are small.
 * @param {CanvasRenderingContext2D} context
 * @param {Api.TokenGrid} grid
 */
function drawLines(context, grid) {
  const { width, height } = context.canvas;
  if (Math.min(width / grid.width, height / grid.height) < MIN_LINED_PATCH) return;
  context.fillStyle = "#fff4";
  for (let column = 1; column < grid.width; column += 1) {
    context.fillRect(Math.round((column * width) / grid.width), 0, 1, height);
  }
  for (let row = 1; row < grid.height; row += 1) {
    context.fillRect(0, Math.round((row * height) / grid.height), width, 1);
  }
}

/**
 * Return the level of a weight, 0 to 255.
 * @param {number} weight
 * @param {number} max
 */
const toLevel = (weight, max) => (max > 0 ? Math.round(255 * Math.min(1, weight / max)) : 0);

/**
 * Return weights as levels of a colormap.
 * @param {Float32Array} weights
 * @param {number} width
 * @param {number} max
 * @returns {Levels}
 */
const makeLevels = (weights, width, max) => ({
  width, height: weights.length / width,
  data: Uint8Array.from(weights, (weight) => toLevel(weight, max)),
});

/**
 * Return the indices of the names that are not empty: empty names mark padding.
 * @param {string[]} names
 */
const listNamed = (names) => [...names.keys()].filter((index) => names[index]);

/**
 * Return whether a token is a patch of a grid.
 * @param {number} index
 * @param {Api.TokenGrid | null} grid
 */
const isPatch = (index, grid) => grid !== null
  && index >= grid.leading && index < grid.leading + grid.width * grid.height;
