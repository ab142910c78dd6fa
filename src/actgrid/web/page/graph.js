/** The network view: cards with thumbnails, groups that expand and collapse, edges. */

import * as data from "./data.js";
import {
  ARROW_DIRECTIONS, button, byId, div, formatCount, formatShape, getContext, hasModifier, make,
  makeSvg, saveButton, span,
} from "./dom.js";
import { CARD, computeLayout } from "./layout.js";
import { paintLevels } from "./levels.js";
import { drawNetwork, saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

/** @import { Item, Layout, Placement } from "./layout.js" */
/** @import { Levels } from "./levels.js" */
/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Placed Position of the element of a card or box in the layout.
 * @property {Item | null} item
 * @property {number} x
 * @property {number} y
 * @property {number} width
 * @property {number} height
 */

/**
 * @typedef {Placed & {
 *   kind: "card", element: HTMLElement, thumbnail: HTMLCanvasElement, dead: HTMLElement,
 *   title: HTMLElement, type: HTMLElement, shape: HTMLElement, pick: HTMLButtonElement,
 *   index: number, group: number | null,
 * }} Card The card of a node, or of a closed group.
 */

/**
 * @typedef {Placed & {
 *   kind: "box", element: HTMLElement, title: HTMLElement, pick: HTMLButtonElement, group: number,
 * }} BoxCard The box of an open group.
 */

/** @typedef {{group: number | null, index?: number, x: number, y: number}} Anchor */

const MARGIN = 12;
/** @type {Placed} */
const UNPLACED = { item: null, x: 0, y: 0, width: 0, height: 0 };

export class Graph {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    /**
     * Cards by key; cards are reused when the layout changes.
     * @type {Map<string, Card | BoxCard>}
     */
    this.cards = new Map();
    /** @type {{image: string, about: Api.Layers, levels: Levels, picture: ImageBitmap} | null} */
    this.sprite = null;
    /**
     * Keys of what is shown; null: must be shown again.
     * @type {{layout: string | null, layer: number | null, filter: string | null,
     *   thumbnails: string | null}}
     */
    this.shown = { layout: null, layer: null, filter: null, thumbnails: null };
    /** @type {Layout} */
    this.layout = { cards: [], boxes: [], edges: [], width: 0, height: 0 };
    /** @type {Card[]} */
    this.resultCards = [];
    /** @type {number | undefined} */
    this.toggledGroup = undefined;
    this.task = new data.LatestTask(() => { this.sprite = null; });
    const label = "Find layers by name or type";
    this.filter = make("input", {
      type: "search", placeholder: label, "aria-label": label, autocomplete: "off",
      spellcheck: "false", oninput: () => this.show(getState()),
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.handleFilterKey(event),
    });
    const tools = div("tools", this.filter, saveButton("the network", () => this.save()));
    if (this.model.groups.length) {
      tools.append(div("tools",
        button("Expand all", { onclick: () => updateState({ open: ["*"] }) }),
        button("Collapse all", { onclick: () => updateState({ open: [] }) })));
    }
    this.lines = makeSvg("svg", { "aria-hidden": "true" });
    this.field = make("div", {
      class: "cards", role: "group", "aria-label": "Layers",
      onkeydown: (/** @type {KeyboardEvent & {target: Element}} */ event) => this.handleKey(event),
      onfocusin: (/** @type {FocusEvent & {target: Element}} */ event) =>
        this.setTabStop(event.target),
    }, this.lines);
    this.results = make("div", {
      class: "results", role: "group", "aria-label": "Matching layers", hidden: true,
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.handleResultKey(event),
    });
    this.scroller = div("scroller", this.field, this.results);
    byId("graph").append(tools, this.scroller);
    new ResizeObserver(() => this.centre()).observe(this.scroller);
  }

  /** @param {State} state */
  show(state) {
    this.load(state);
    this.showLayout(state);
    this.showResults();
    this.showCurrent(state);
    this.showThumbnails(state);
  }

  /**
   * Load the statistics and thumbnails of all layers for the current image.
   * @param {State} state
   */
  load({ image }) {
    if (!image) return;
    this.task.run(image, async (signal) => {
      const [about, levels, picture] = await Promise.all([
        data.loadJson(data.paths.layers(image), signal),
        data.loadLevels(data.paths.sprite(image), signal),
        data.loadBitmap(data.paths.thumbnail(image), signal),
      ]);
      this.sprite = { image, about, levels, picture };
      this.showThumbnails(getState());
    });
  }

  /** @param {State} state */
  showLayout(state) {
    const openGroups = this.model.getOpenGroups(state);
    const key = [...openGroups].join();
    if (key === this.shown.layout) return;
    const isFirst = this.shown.layout === null;
    this.shown.layout = key;
    this.shown.thumbnails = null;
    const anchor = isFirst ? null : this.findAnchor();
    this.layout = computeLayout(this.model, openGroups);
    const placements = [...this.layout.cards, ...this.layout.boxes];
    const currentKeys = new Set(placements.map((placement) => this.placeCard(placement)));
    for (const [cardKey, card] of this.cards) {
      if (currentKeys.has(cardKey)) continue;
      card.element.remove();
      this.cards.delete(cardKey);
    }
    this.sortCards();
    this.drawEdges();
    this.field.style.width = `${this.layout.width + 2 * MARGIN}px`;
    this.field.style.height = `${this.layout.height + 2 * MARGIN}px`;
    this.centre();
    if (anchor) this.restoreAnchor(anchor);
    this.shown.layer = null;
  }

  /** Sort the elements of the cards from top to bottom, the order in which screen readers go. */
  sortCards() {
    const sorted = [...this.cards.values()].sort((a, b) => a.y - b.y || a.x - b.x);
    const focused = document.activeElement;
    this.field.append(...sorted.map(({ element }) => element));
    if (focused instanceof HTMLElement && this.field.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }

  /**
   * Move the card of an item to its position, creating it if needed; return its key.
   * @param {Placement} placement
   */
  placeCard({ item, x, y }) {
    const { kind, group, node, width, height } = item;
    const key = group === null ? `node ${node}` : `group ${group}`;
    const old = this.cards.get(key);
    const make = () => (kind === "box" && group !== null
      ? this.makeBox(group) : this.makeCard(node, group));
    const card = old?.kind === kind ? old : make();
    if (old && old !== card) old.element.remove();
    Object.assign(card, { item, x, y, width, height });
    const transform = `translate(${x + MARGIN}px, ${y + MARGIN}px)`;
    Object.assign(card.element.style, { transform, width: `${width}px`, height: `${height}px` });
    this.cards.set(key, card);
    return key;
  }

  /**
   * @param {number} index
   * @param {number | null} group
   */
  makeCard(index, group) {
    const closedGroup = group === null ? null : this.model.groups[group];
    const thumbnail = make("canvas", { class: "thumbnail", width: 96, height: 96 });
    const dead = make("span", { class: "dead", hidden: true });
    const title = make("b", {});
    const type = make("span", {});
    const shape = span("muted numbers");
    const pick = button("", { class: "pick", onclick: () => this.openLayer(card.index) }, thumbnail,
      span("words", title, span("muted type", type, dead), shape));
    const kind = closedGroup ? `folded ${closedGroup.kind}` : "";
    const element = make("div", { class: `card ${kind}` }, pick);
    if (group !== null) element.append(this.makeToggle(group, true));
    /** @type {Card} */
    const card = {
      kind: "card", element, thumbnail, dead, title, type, shape, pick, index, group, ...UNPLACED,
    };
    this.describeLayer(card);
    return card;
  }

  /**
   * Show the name, type and shape of the layer that a click on the card opens.
   * @param {Card} card
   */
  describeLayer({ title, type, shape, pick, index, group }) {
    const node = this.model.nodes[index];
    const closedGroup = group === null ? null : this.model.groups[group];
    title.textContent = node.name;
    type.textContent = !closedGroup ? node.type
      : closedGroup.kind === "model" ? `${closedGroup.name}: ${closedGroup.title}`
        : closedGroup.title;
    shape.textContent = formatShape(node.shape);
    pick.dataset.path = node.path;
    pick.title = `${node.path}\n${type.textContent}`;
    pick.disabled = !node.is_drawable;
  }

  /**
   * Show the current layer on the card of its closed group, the last layer on other groups.
   * @param {number} index
   */
  updateGroupCards(index) {
    for (const card of this.cards.values()) {
      if (card.kind !== "card" || card.group === null) continue;
      const isInside = this.model.getGroups(index).includes(card.group);
      const layer = isInside ? index : this.model.lastNodes[card.group];
      if (layer === card.index) continue;
      card.index = layer;
      this.describeLayer(card);
      this.shown.thumbnails = null;
    }
  }

  /**
   * @param {number} group
   * @returns {BoxCard}
   */
  makeBox(group) {
    const { name, kind, title: summary } = this.model.groups[group];
    const pick = this.makeToggle(group, false);
    const title = make("b", {}, name);
    const head = make("div", { class: "head", title: `${name}\n${summary}` },
      pick, title, span("muted", kind));
    return { kind: "box", element: div(`box ${kind}`, head), title, pick, group, ...UNPLACED };
  }

  /**
   * @param {number} group
   * @param {boolean} isClosed
   */
  makeToggle(group, isClosed) {
    const { name } = this.model.groups[group];
    const title = isClosed ? "Expand" : "Collapse";
    return button("", {
      class: "toggle", title, "aria-label": `${title} ${name}`, "aria-expanded": String(!isClosed),
      onclick: () => this.toggleGroup(group),
    });
  }

  drawEdges() {
    const { width, height, edges } = this.layout;
    const lines = this.lines;
    lines.setAttribute("width", String(width + 2 * MARGIN));
    lines.setAttribute("height", String(height + 2 * MARGIN));
    lines.replaceChildren(makeSvg("g", { transform: `translate(${MARGIN} ${MARGIN})` },
      ...edges.map(({ path }) => makeSvg("path", { d: path }))));
  }

  /** Centre a network that is narrower than its pane. */
  centre() {
    const space = this.scroller.clientWidth - this.layout.width - 2 * MARGIN;
    this.field.style.marginLeft = `${Math.max(0, space / 2)}px`;
  }

  /**
   * Return the card that must not move on the screen while groups expand and collapse.
   * @returns {Anchor | null}
   */
  findAnchor() {
    const { toggledGroup } = this;
    const card = toggledGroup === undefined
      ? this.getCurrentCard() : this.cards.get(`group ${toggledGroup}`);
    if (!card) return null;
    const { group } = card;
    const index = card.kind === "card" ? card.index : undefined;
    const { scrollLeft, scrollTop } = this.scroller;
    return { group, index, x: card.x + card.width / 2 - scrollLeft, y: card.y - scrollTop };
  }

  /**
   * Scroll so that the anchor is at its former position on the screen.
   * @param {Anchor} anchor
   */
  restoreAnchor({ group, index, x, y }) {
    const card = (group !== null && this.cards.get(`group ${group}`))
      || (index !== undefined ? this.getCard(index) : null);
    if (!card) return;
    this.scroller.scrollTop = card.y - y;
    this.scroller.scrollLeft = card.x + card.width / 2 - x;
    if (this.toggledGroup !== undefined) {
      getToggle(card)?.focus({ preventScroll: true });
    }
    this.toggledGroup = undefined;
  }

  /** @param {number} group */
  toggleGroup(group) {
    const openGroups = this.model.getOpenGroups(getState());
    if (!openGroups.delete(group)) openGroups.add(group);
    this.toggledGroup = group;
    updateState({ open: this.model.formatOpenGroups(openGroups) });
  }

  /** @param {number} index */
  openLayer(index) {
    const node = this.model.nodes[index];
    if (!node.is_drawable) return;
    /** @type {Partial<State>} */
    const initial = { channel: null, view: null, columns: null, pane: "view" };
    const keepsHeads = getState().tab === "heads" && node.attention !== null;
    initial.tab = keepsHeads ? "heads" : "layer";
    updateState({ layer: node.path, ...initial });
  }

  /**
   * Return the card of a node, or of the closed group that contains the node.
   * @param {number} index
   */
  getCard(index) {
    for (const group of this.model.getGroups(index)) {
      const card = this.cards.get(`group ${group}`);
      if (card?.kind === "card") return card;
    }
    return this.cards.get(`node ${index}`);
  }

  getCurrentCard() {
    return this.getCard(this.model.getLayerIndex(getState()));
  }

  /** @param {State} state */
  showCurrent(state) {
    const index = this.model.getLayerIndex(state);
    if (index === this.shown.layer) return;
    const isFirst = this.shown.layer === null;
    this.shown.layer = index;
    this.updateGroupCards(index);
    const current = this.getCard(index);
    for (const card of this.cards.values()) {
      card.element.classList.toggle("current", card === current);
      if (card.kind === "card") card.pick.ariaCurrent = card === current ? "true" : null;
    }
    const item = current?.item;
    for (const [position, line] of this.lines.querySelectorAll("path").entries()) {
      const isNear = item && this.layout.edges[position].ends.includes(item);
      line.classList.toggle("near", Boolean(isNear));
    }
    if (!current) return;
    this.setTabStop(current.pick);
    if (!this.field.contains(document.activeElement)) this.scrollTo(current, isFirst);
  }

  /**
   * Scroll to a card, unless it is in view; `centre` always centres it horizontally.
   * @param {Placed} card
   */
  scrollTo(card, centre = false) {
    const { scroller } = this;
    const [x, y] = [card.x + MARGIN, card.y + MARGIN];
    /** @type {(from: number, size: number, start: number, available: number) => boolean} */
    const isWithin = (from, size, start, available) =>
      from >= start && from + size <= start + available;
    if (!isWithin(y, card.height, scroller.scrollTop, scroller.clientHeight)) {
      scroller.scrollTop = y - (scroller.clientHeight - card.height) / 2;
    }
    if (centre || !isWithin(x, card.width, scroller.scrollLeft, scroller.clientWidth)) {
      scroller.scrollLeft = x - (scroller.clientWidth - card.width) / 2;
    }
  }

  /** @param {State} state */
  showThumbnails(state) {
    if (!this.sprite) return;
    const key = [this.sprite.image, state.cmap, this.shown.layout, this.shown.filter].join("|");
    if (key === this.shown.thumbnails) return;
    this.shown.thumbnails = key;
    for (const card of this.cards.values()) {
      if (card.kind === "card") this.drawThumbnail(card, state);
    }
    for (const card of this.resultCards) this.drawThumbnail(card, state);
  }

  /**
   * @param {Card} card
   * @param {State} state
   */
  drawThumbnail({ thumbnail, dead, index }, state) {
    if (!this.sprite) return;
    const { image, about, levels, picture } = this.sprite;
    const { side, columns } = about;
    const context = getContext(thumbnail);
    const stats = about.layers[index];
    thumbnail.width = thumbnail.height = side;
    thumbnail.dataset.shown = image;
    if (stats) {
      const [x, y] = [(index % columns) * side, Math.floor(index / columns) * side];
      const part = { x, y, width: side, height: side };
      context.drawImage(paintLevels(levels, this.model.getLut(state.cmap), part), 0, 0);
    } else if (this.model.inputs.includes(index)) {
      context.drawImage(picture, 0, 0, side, side);
    }
    dead.hidden = !stats?.dead;
    dead.textContent = stats?.dead ? `${stats.dead} dead` : "";
  }

  /* Search */

  showResults() {
    const query = this.filter.value.trim().toLowerCase();
    if (query === this.shown.filter) return;
    this.shown.filter = query;
    this.results.hidden = !query;
    this.field.hidden = Boolean(query);
    /** @param {Api.Node} node */
    const getText = ({ path, type }) => `${path} ${type}`.toLowerCase();
    const matches = [...this.model.nodes.keys()].filter((index) => {
      const node = this.model.nodes[index];
      return query && node.is_drawable && getText(node).includes(query);
    });
    this.resultCards = matches.map((index) => this.makeCard(index, null));
    for (const { pick, index } of this.resultCards) {
      pick.addEventListener("click", () => this.leaveFilter(index));
    }
    const text = query ? `${formatCount(matches.length, "layer")} found` : "";
    const summary = make("p", { class: "muted", role: "status" }, text);
    this.results.replaceChildren(summary, ...this.resultCards.map(({ element }) => element));
    if (!query) this.centre();
  }

  /**
   * Leave the search results for the network, where the groups around the layer expand.
   * @param {number} index
   */
  leaveFilter(index) {
    this.filter.value = "";
    const openGroups = this.model.getOpenGroups(getState());
    for (const group of this.model.getGroups(index)) openGroups.add(group);
    updateState({ open: this.model.formatOpenGroups(openGroups) }, { newEntry: false });
    this.show(getState());
    const card = this.getCard(index);
    if (card) this.scrollTo(card, true);
  }

  /** @param {KeyboardEvent} event */
  handleFilterKey(event) {
    if (event.key === "Escape" && this.filter.value) {
      this.filter.value = "";
      this.show(getState());
    } else if (event.key === "Enter") {
      this.resultCards[0]?.pick.click();
    } else if (event.key === "ArrowDown") {
      const { hidden } = this.results;
      const first = hidden ? this.getCurrentCard() : this.resultCards[0];
      first?.pick.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  handleResultKey(event) {
    const step = ARROW_DIRECTIONS[event.key]?.[1];
    if (!step) return;
    const picks = this.resultCards.map(({ pick }) => pick);
    const next = picks.findIndex((pick) => pick === document.activeElement) + step;
    (next < 0 ? this.filter : picks[next])?.focus();
    event.preventDefault();
  }

  /* Keys: Tab reaches one card only, and the arrow keys move to the others. */

  /** @param {Element} target */
  setTabStop(target) {
    const focused = target.closest(".card, .box");
    for (const card of this.cards.values()) {
      const isFocused = card.element === focused;
      card.pick.tabIndex = isFocused ? 0 : -1;
      const toggle = getToggle(card);
      if (toggle) toggle.tabIndex = isFocused ? 0 : -1;
    }
  }

  /** @param {KeyboardEvent & {target: Element}} event */
  handleKey(event) {
    const focused = event.target.closest(".card, .box");
    const card = [...this.cards.values()].find(({ element }) => element === focused);
    if (!card || hasModifier(event)) return;
    const direction = ARROW_DIRECTIONS[event.key];
    if (direction) {
      const next = this.findNextCard(card, direction);
      if (next) {
        next.pick.focus({ preventScroll: true });
        this.scrollTo(next);
      }
    } else if (event.key === "+" && card.kind === "card" && card.group !== null) {
      this.toggleGroup(card.group);
    } else if (event.key === "-") {
      const group = card.kind === "box" ? card.group : this.model.nodes[card.index].group;
      const isOpen = this.cards.get(`group ${group}`)?.kind === "box";
      if (group !== null && isOpen) this.toggleGroup(group);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * Return the nearest card in a direction; null if there is none.
   * @param {Card | BoxCard} card
   * @param {[number, number]} direction
   */
  findNextCard(card, [right, down]) {
    /** @param {Card | BoxCard} card */
    const getCentre = ({ x, y, width, height, kind }) => [
      x + width / 2,
      kind === "box" ? y + 15 : y + height / 2,
    ];
    const [x, y] = getCentre(card);
    let minCost = Infinity;
    /** @type {Card | BoxCard | null} */
    let nearest = null;
    for (const other of this.cards.values()) {
      if (other === card || (other.kind === "card" && other.pick.disabled)) continue;
      const [otherX, otherY] = getCentre(other);
      const [dx, dy] = [otherX - x, otherY - y];
      const ahead = dx * right + dy * down;
      const sideways = Math.abs(dx * down) + Math.abs(dy * right);
      const cost = ahead + 2 * sideways;
      if (ahead > 4 && (down || sideways < CARD.height) && cost < minCost) {
        minCost = cost;
        nearest = other;
      }
    }
    return nearest;
  }

  save() {
    saveCanvas(drawNetwork(this), `${this.model.name}-network.png`);
  }
}

/**
 * Return the button that expands or collapses the group of a card; null for the card of a layer.
 * @param {Card | BoxCard} card
 * @returns {HTMLButtonElement | null}
 */
const getToggle = ({ element }) => element.querySelector(".toggle");
