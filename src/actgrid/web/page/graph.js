/** The network view: cards with thumbnails, groups that expand and collapse, edges. */

import * as data from "./data.js";
import {
  ARROW_DIRECTIONS, button, byId, div, formatCount, formatShape, hasModifier, make, saveButton,
  span,
} from "./dom.js";
import { CARD, computeLayout } from "./layout.js";
import { paintLevels } from "./levels.js";
import { drawNetwork, saveCanvas } from "./save.js";
import { getState, updateState } from "./state.js";

const MARGIN = 12;

export class Graph {
  constructor(model) {
    this.model = model;
    this.cards = new Map(); // by key; cards are reused when the layout changes
    this.sprite = null;
    this.shown = { layout: null, layer: null, filter: null, thumbnails: null };
    this.task = new data.LatestTask(() => { this.sprite = null; });
    this.build();
  }

  build() {
    const label = "Find layers by name or type";
    this.filter = make("input", {
      type: "search", placeholder: label, "aria-label": label, autocomplete: "off",
      spellcheck: "false", oninput: () => this.show(getState()),
      onkeydown: (event) => this.handleFilterKey(event),
    });
    const tools = div("tools", this.filter, saveButton("the network", () => this.save()));
    if (this.model.groups.length) {
      tools.append(div("tools",
        button("Expand all", { onclick: () => updateState({ open: ["*"] }) }),
        button("Collapse all", { onclick: () => updateState({ open: [] }) })));
    }
    this.lines = make("svg:svg", { "aria-hidden": "true" });
    this.field = make("div", {
      class: "cards", role: "group", "aria-label": "Layers",
      onkeydown: (event) => this.handleKey(event),
      onfocusin: (event) => this.setTabStop(event.target),
    }, this.lines);
    this.results = make("div", {
      class: "results", role: "group", "aria-label": "Matching layers", hidden: true,
      onkeydown: (event) => this.handleResultKey(event),
    });
    this.scroller = div("scroller", this.field, this.results);
    byId("graph").append(tools, this.scroller);
    new ResizeObserver(() => this.centre()).observe(this.scroller);
  }

  show(state) {
    this.load(state);
    this.showLayout(state);
    this.showResults();
    this.showCurrent(state);
    this.showThumbnails(state);
  }

  /** Load the statistics and thumbnails of all layers for the current image. */
  load(state) {
    if (!state.image) return;
    this.task.run(state.image, async (signal) => {
      const { image } = state;
      const [about, levels, picture] = await Promise.all([
        data.loadJson(data.paths.layers(image), signal),
        data.loadLevels(data.paths.sprite(image), signal),
        data.loadBitmap(data.paths.thumbnail(image), signal),
      ]);
      this.sprite = { image, about, levels, picture };
      this.showThumbnails(getState());
    });
  }

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
    if (this.field.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Move the card of an item to its position, creating it if needed; return its key. */
  placeCard({ item, x, y }) {
    const { kind, group, node, width, height } = item;
    const key = group === null ? `node ${node}` : `group ${group}`;
    const old = this.cards.get(key);
    const card = old?.kind === kind ? old : this[kind === "box" ? "makeBox" : "makeCard"](item);
    if (old && old !== card) old.element.remove();
    Object.assign(card, { item, x, y, width, height });
    const transform = `translate(${x + MARGIN}px, ${y + MARGIN}px)`;
    Object.assign(card.element.style, { transform, width: `${width}px`, height: `${height}px` });
    this.cards.set(key, card);
    return key;
  }

  makeCard({ node: index, group }) {
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
    if (closedGroup) element.append(this.makeToggle(group, true));
    const card = { kind: "card", element, thumbnail, dead, title, type, shape, pick, index, group };
    this.describeLayer(card);
    return card;
  }

  /** Show the name, type and shape of the layer that a click on the card opens. */
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

  /** Show the current layer on the card of its closed group, the last layer on other groups. */
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

  makeBox({ group }) {
    const { name, kind, title } = this.model.groups[group];
    const pick = this.makeToggle(group, false);
    const head = make("div", { class: "head", title: `${name}\n${title}` },
      pick, make("b", {}, name), span("muted", kind));
    const element = div(`box ${kind}`, head);
    return { kind: "box", element, pick, group };
  }

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
    lines.setAttribute("width", width + 2 * MARGIN);
    lines.setAttribute("height", height + 2 * MARGIN);
    lines.replaceChildren(make("svg:g", { transform: `translate(${MARGIN} ${MARGIN})` },
      ...edges.map(({ path }) => make("svg:path", { d: path }))));
  }

  /** Centre a network that is narrower than its pane. */
  centre() {
    if (!this.layout) return;
    const space = this.scroller.clientWidth - this.layout.width - 2 * MARGIN;
    this.field.style.marginLeft = `${Math.max(0, space / 2)}px`;
  }

  /** Return the card that must not move on the screen while groups expand and collapse. */
  findAnchor() {
    const { toggledGroup } = this;
    const card = toggledGroup === undefined
      ? this.getCurrentCard() : this.cards.get(`group ${toggledGroup}`);
    if (!card) return null;
    const { group, index } = card;
    const { scrollLeft, scrollTop } = this.scroller;
    return { group, index, x: card.x + card.width / 2 - scrollLeft, y: card.y - scrollTop };
  }

  /** Scroll so that the anchor is at its former position on the screen. */
  restoreAnchor({ group, index, x, y }) {
    const card = (group !== null && this.cards.get(`group ${group}`))
      || (index !== undefined ? this.getCard(index) : null);
    if (!card) return;
    this.scroller.scrollTop = card.y - y;
    this.scroller.scrollLeft = card.x + card.width / 2 - x;
    if (this.toggledGroup !== undefined) {
      card.pick.closest(".card, .box").querySelector(".toggle")?.focus({ preventScroll: true });
    }
    this.toggledGroup = undefined;
  }

  toggleGroup(group) {
    const openGroups = this.model.getOpenGroups(getState());
    if (!openGroups.delete(group)) openGroups.add(group);
    this.toggledGroup = group;
    updateState({ open: this.model.formatOpenGroups(openGroups) });
  }

  openLayer(index) {
    const node = this.model.nodes[index];
    if (!node.is_drawable) return;
    const initial = { channel: null, view: null, columns: null, pane: "view", tab: "layer" };
    updateState({ layer: node.path, ...initial });
  }

  /** Return the card of a node, or of the closed group that contains the node. */
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
    for (const [position, line] of [...this.lines.firstChild.children].entries()) {
      line.classList.toggle("near", this.layout.edges[position].ends.includes(current?.item));
    }
    if (!current) return;
    this.setTabStop(current.pick);
    if (!this.field.contains(document.activeElement)) this.scrollTo(current, isFirst);
  }

  /** Scroll to a card, unless it is in view; `centre` always centres it horizontally. */
  scrollTo(card, centre = false) {
    const { scroller } = this;
    const [x, y] = [card.x + MARGIN, card.y + MARGIN];
    const isWithin = (from, size, start, available) =>
      from >= start && from + size <= start + available;
    if (!isWithin(y, card.height, scroller.scrollTop, scroller.clientHeight)) {
      scroller.scrollTop = y - (scroller.clientHeight - card.height) / 2;
    }
    if (centre || !isWithin(x, card.width, scroller.scrollLeft, scroller.clientWidth)) {
      scroller.scrollLeft = x - (scroller.clientWidth - card.width) / 2;
    }
  }

  showThumbnails(state) {
    if (!this.sprite) return;
    const key = [this.sprite.image, state.cmap, this.shown.layout, this.shown.filter].join("|");
    if (key === this.shown.thumbnails) return;
    this.shown.thumbnails = key;
    for (const card of this.cards.values()) {
      if (card.kind === "card") this.drawThumbnail(card, state);
    }
    for (const card of this.resultCards ?? []) this.drawThumbnail(card, state);
  }

  drawThumbnail({ thumbnail, dead, index }, state) {
    const { about, levels, picture } = this.sprite;
    const { side, columns } = about;
    const context = thumbnail.getContext("2d");
    const stats = about.layers[index];
    thumbnail.width = thumbnail.height = side;
    thumbnail.dataset.shown = this.sprite.image;
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
    const getText = ({ path, type }) => `${path} ${type}`.toLowerCase();
    const matches = [...this.model.nodes.keys()].filter((index) => {
      const node = this.model.nodes[index];
      return query && node.is_drawable && getText(node).includes(query);
    });
    this.resultCards = matches.map((index) => this.makeCard({ node: index, group: null }));
    for (const { pick, index } of this.resultCards) {
      pick.addEventListener("click", () => this.leaveFilter(index));
    }
    const text = query ? `${formatCount(matches.length, "layer")} found` : "";
    const summary = make("p", { class: "muted", role: "status" }, text);
    this.results.replaceChildren(summary, ...this.resultCards.map(({ element }) => element));
    if (!query) this.centre();
  }

  /** Leave the search results for the network, where the groups around the layer expand. */
  leaveFilter(index) {
    this.filter.value = "";
    const openGroups = this.model.getOpenGroups(getState());
    for (const group of this.model.getGroups(index)) openGroups.add(group);
    updateState({ open: this.model.formatOpenGroups(openGroups) }, { newEntry: false });
    this.show(getState());
    const card = this.getCard(index);
    if (card) this.scrollTo(card, true);
  }

  handleFilterKey(event) {
    if (event.key === "Escape" && this.filter.value) {
      this.filter.value = "";
      this.show(getState());
    } else if (event.key === "Enter") {
      this.results.querySelector(".pick")?.click();
    } else if (event.key === "ArrowDown") {
      const { hidden } = this.results;
      const first = hidden ? this.getCurrentCard()?.pick : this.results.querySelector(".pick");
      first?.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  handleResultKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const picks = [...this.results.querySelectorAll(".pick")];
    const next = picks.indexOf(document.activeElement) + step;
    (next < 0 ? this.filter : picks[next])?.focus();
    event.preventDefault();
  }

  /* Keys: Tab reaches one card only, and the arrow keys move to the others. */

  setTabStop(target) {
    const focused = target.closest(".card, .box");
    for (const { element, pick } of this.cards.values()) {
      const isFocused = element === focused;
      pick.tabIndex = isFocused ? 0 : -1;
      const toggle = element.querySelector(".toggle");
      if (toggle) toggle.tabIndex = isFocused ? 0 : -1;
    }
  }

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
      if (this.cards.get(`group ${group}`)?.kind === "box") this.toggleGroup(group);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Return the nearest card in a direction; null if there is none. */
  findNextCard(card, [right, down]) {
    const getCentre = ({ x, y, width, height, kind }) => [
      x + width / 2,
      kind === "box" ? y + 15 : y + height / 2,
    ];
    const [x, y] = getCentre(card);
    let [minCost, nearest] = [Infinity, null];
    for (const other of this.cards.values()) {
      if (other === card || (other.kind === "card" && other.pick.disabled)) continue;
      const [otherX, otherY] = getCentre(other);
      const [dx, dy] = [otherX - x, otherY - y];
      const ahead = dx * right + dy * down;
      const sideways = Math.abs(dx * down) + Math.abs(dy * right);
      const cost = ahead + 2 * sideways;
      if (ahead > 4 && (down || sideways < CARD.height) && cost < minCost) {
        [minCost, nearest] = [cost, other];
      }
    }
    return nearest;
  }

  save() {
    saveCanvas(drawNetwork(this), `${this.model.name}-network.png`);
  }
}
